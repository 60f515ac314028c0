"""Probes over gRPC: the monitor finds them, and nothing that a user can ask shows one."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from live_lookups import LiveLookups, live_lookups
from nearkin.core import item
from nearkin.core.errors import UnknownItem
from nearkin.core.filters import ItemFilter
from nearkin.core.item import Availability, Content, Offer, Status
from nearkin.core.probe import PROBE_MARKET, is_probe
from nearkin.core.retrieval import Ranking, Retrieval
from nearkin.core.rules import Curation
from nearkin.lookup.server import Limits
from remembered import remember, visit

WORDS = Content(title="red mug", categories=(("kitchen", "mugs"),), tags=("gift",))
MUGS = [
    item.upserted(f"mug-{n}", Content(title=f"red mug {n}", categories=(("kitchen", "mugs"),)), 1) for n in range(4)
]
HIDDEN = item.upserted("mug-hidden", Content(title="red mug", status=Status.HIDDEN), 1)
#: As the monitor publishes it, and as one that somebody sent past all checks, without a market, might be.
PROBES = [
    item.upserted("nearkin-probe-00", WORDS, 1, Offer(markets=(PROBE_MARKET,)), 1),
    item.upserted("nearkin-probe-stray", Content(title="red kettle", categories=WORDS.categories), 1),
]
OF_PROBES = ItemFilter(market=PROBE_MARKET)


@pytest.fixture
async def live() -> AsyncIterator[LiveLookups]:
    async with live_lookups(Limits(evidence_budget_s=1.0)) as live:
        await live.publish(*MUGS, HIDDEN, *PROBES)
        # As if evidence of a probe had come past all checks, too.
        together = [visit("mug-1", "nearkin-probe-00", "nearkin-probe-stray", "mug-2") for _ in range(30)]
        await remember(live.evidence, *together)
        await live.server.stream.read_counts()
        await live.server.stream.read_popular()
        live.curation = Curation(pins={"mug-2": ("nearkin-probe-00", "mug-3")})
        yield live


filters = st.builds(
    ItemFilter,
    categories_any=st.sampled_from([(), (("kitchen", "mugs"),)]),
    tags_any=st.sampled_from([(), ("gift",)]),
    availability=st.sampled_from([(), (Availability.IN_STOCK,)]),
    market=st.sampled_from(["", "GB"]),
)
anchors = st.sampled_from([{"item_id": "mug-1"}, {"item_id": "mug-2"}, {"item_id": "unheard-of"}, {"content": WORDS}])
pins = st.sets(st.sampled_from(["nearkin-probe-00", "nearkin-probe-stray", "mug-0"]), max_size=2)


async def test_whatever_a_user_asks_no_answer_holds_a_probe(live: LiveLookups):
    answers = []

    @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        anchor=anchors,
        asked=filters,
        retrieval=st.sampled_from(Retrieval),
        ranking=st.sampled_from(Ranking),
        pinned=pins,
        request_id=st.text("abc", min_size=1, max_size=3),
    )
    def draw(anchor, asked, retrieval, ranking, pinned, request_id):
        ranked = {"ranking": ranking, "pinned_ids": sorted(pinned)} if retrieval is Retrieval.FUSED else {}
        unknown = {"popular_if_unknown": True} if "item_id" in anchor else {}
        questions.append(
            {**anchor, **ranked, **unknown, "filter": asked, "retrieval": retrieval, "request_id": request_id, "k": 10}
        )

    questions: list[dict] = []
    draw()
    for question in questions:
        try:
            answers.append(await live.client.similar(**question))
        except UnknownItem:
            continue
    assert sum(bool(answer.neighbours) for answer in answers) > 40
    assert not [near.id for answer in answers for near in answer.neighbours if is_probe(near.id)]


async def test_without_the_index_no_answer_holds_a_probe_that_the_monitor_has_found(live: LiveLookups):
    await live.client.similar(content=WORDS, filter=OF_PROBES)
    await live.client.similar(item_id="mug-1")
    live.index.go_away()
    answer = await live.client.similar(item_id="mug-1", pinned_ids=["nearkin-probe-00"])
    assert "index" in answer.degraded
    assert {near.id for near in answer.neighbours} == {"mug-2"}


async def test_to_users_a_probe_is_no_anchor(live: LiveLookups):
    with pytest.raises(UnknownItem):
        await live.client.similar(item_id="nearkin-probe-00")


@pytest.mark.parametrize("retrieval", Retrieval)
async def test_in_the_probes_market_probes_are_found_and_nothing_else(live: LiveLookups, retrieval: Retrieval):
    answer = await live.client.similar(content=WORDS, filter=OF_PROBES, retrieval=retrieval)
    assert {near.id for near in answer.neighbours} == {"nearkin-probe-00", "nearkin-probe-stray"}


async def test_neither_logs_nor_counts_of_look_ups_know_of_probes(live: LiveLookups):
    await live.client.similar(content=WORDS, filter=OF_PROBES)
    await live.client.items(["nearkin-probe-00"])
    assert not live.logged
    assert not live.metrics.registry.get_sample_value("nearkin_lookups_total", {"method": "FindSimilar", "code": "OK"})
    assert not live.metrics.registry.get_sample_value("nearkin_lookups_total", {"method": "GetItems", "code": "OK"})
