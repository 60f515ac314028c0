"""Over all request ids, an item stands at a position as often as the look-up and the log say that it does."""

from collections import Counter
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from live_lookups import WatchedIndex
from nearkin.contracts.lookups import decode_answered, encode_answered
from nearkin.core import item
from nearkin.core.evidence import EvidenceRules
from nearkin.core.exploration import ExplorationRules, Policy
from nearkin.core.filters import ItemFilter
from nearkin.core.item import Content
from nearkin.core.ports import IndexedItem, ItemWrite
from nearkin.core.rules import Curation, Rules
from nearkin.encoders.fake import HashingEncoder
from nearkin.lookup.encode_answer import logged
from nearkin.lookup.engines import Engine
from nearkin.lookup.find_similar import Answer, Depths, FindSimilar
from nearkin.lookup.follow_stream import Stream
from nearkin.lookup.rank_candidates import Ordering
from nearkin.lookup.recall_evidence import RecallEvidence
from nearkin.lookup.request import SimilarTo
from nearkin.ops.metrics import Metrics
from nearkin.stores.memory_evidence import MemoryEvidence
from remembered import now_ms, remember, visit

ENCODER = HashingEncoder()
REQUESTS, PORTION, K = 4_000, 100, 6
SHARES = {Policy.SHUFFLED: 0.3, Policy.NEW_ITEM: 0.4}

WORDS = ("red", "large", "blue", "green", "old")

#: Three makers, of which each may have 8 items in an answer.
PRODUCTS = {
    f"mug-{n}": Content(title=" ".join(["mug", *WORDS[: 1 + n % 5], f"number {n}"]), maker=f"maker {n % 3}")
    for n in range(30)
}
NEW = ("mug-26", "mug-27", "mug-28", "mug-29")


async def look_ups_over_a_shop() -> FindSimilar:
    """Look-ups with every rule at work, over a few items and what was bought together."""
    index, evidence = WatchedIndex(), MemoryEvidence(EvidenceRules())
    collection = await index.prepare(ENCODER.bundle, ENCODER.dimensions)
    vectors = ENCODER.encode(list(PRODUCTS.values()))
    await collection.write(
        [
            ItemWrite(
                IndexedItem(item.upserted(name, content, 1), "f", 1, now_ms() if name in NEW else 1), None, vector
            )
            for (name, content), vector in zip(PRODUCTS.items(), vectors, strict=True)
        ]
    )
    await remember(evidence, *[visit("mug-0", "mug-7")] * 30, *[visit("mug-1", "mug-2")] * 90)
    metrics = Metrics(CollectorRegistry())
    items, remembered = Engine("index", metrics), Engine("evidence", metrics)
    stream = Stream(evidence, index, remembered, items)
    await stream.read_counts()
    return FindSimilar(
        index,
        ENCODER,
        RecallEvidence(evidence),
        stream,
        items=items,
        evidence=remembered,
        ordering=Ordering(
            rules=Rules(most_per_maker=8, near_duplicate=2.0, same_title=2.0),
            diversity=0.3,
            exploration=ExplorationRules(SHARES[Policy.SHUFFLED], 9, SHARES[Policy.NEW_ITEM]),
        ),
        curation=lambda: Curation(blocked_items=frozenset({"mug-5"})),
        depths=Depths(),
        evidence_budget_s=10.0,
        observe=lambda stage, seconds: None,
    )


async def answers_to(find: FindSimilar, one: SimilarTo) -> list[Answer]:
    """The answers to a look-up under many request ids."""
    answers: list[Answer] = []
    for start in range(0, REQUESTS, PORTION):
        named = [replace(one, request_id=f"request {number}") for number in range(start, start + PORTION)]
        found = await find(named, 60.0)
        answers += [answer for answer in found if isinstance(answer, Answer)]
    assert len(answers) == REQUESTS
    return answers


@pytest.mark.timeout(240)
async def test_items_stand_where_they_are_said_to_stand_as_often_as_it_is_told_and_logged():
    asked = SimilarTo("mug-0", K, ItemFilter(exclude_ids=("mug-9",)), pinned=("mug-20", "mug-9"))
    answers = await answers_to(await look_ups_over_a_shop(), asked)
    shown: Counter[tuple[int, str]] = Counter()
    told: dict[tuple[int, str], float] = {}
    for answer in answers:
        for one in answer.placed:
            place = (one.position, one.item_id)
            shown[place] += 1
            assert told.setdefault(place, one.propensity) == one.propensity, "it depends on the order alone"
    for place, propensity in told.items():
        deviation = (propensity * (1 - propensity) / REQUESTS) ** 0.5
        assert abs(shown[place] / REQUESTS - propensity) <= 4.5 * deviation + 1e-9, place
    for position in range(1, K + 1):
        assert sum(told[place] for place in told if place[0] == position) == pytest.approx(1.0)

    drawn = Counter(answer.draw for answer in answers)
    for policy, share in SHARES.items():
        assert abs(drawn[policy] / REQUESTS - share) <= 4.5 * (share * (1 - share) / REQUESTS) ** 0.5
    assert told[1, "mug-20"] == 1.0
    everything = {item_id for _, item_id in told}
    assert not {"mug-0", "mug-5", "mug-9"} & everything
    assert "mug-7" in everything
    assert set(NEW) & everything

    of_each = {answer.draw: answer for answer in answers}
    assert set(of_each) == set(Policy)
    for answer in of_each.values():
        written = decode_answered(*encode_answered(logged(answer, "", now_ms())))
        assert [(one.item_id, one.propensity, one.explored) for one in written.positions] == [
            (one.item_id, one.propensity, one.explored) for one in answer.placed
        ]
        assert written.policy is answer.draw
