"""What the evidence must hold, recounted from the log alone with dictionaries and powers of two.

It stands apart from what it checks: no sums of batches, no landmarks, no guards, no ring of hashes. An event
weighs `2**((t - at) / H)` from the beginning.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Literal
from zlib import crc32

from nearkin.contracts.feedback import decode_feedback, decode_visit
from nearkin.contracts.limits import MAX_AHEAD_MS, MAX_LATENESS_MS
from nearkin.contracts.topics import FEEDBACK
from nearkin.core.errors import InvalidEvent
from nearkin.core.evidence import EvidenceRules, visit_pairs
from nearkin.core.feedback import Impressions, Interaction, Visit
from nearkin.core.ports import EvidenceStore
from nearkin.ops.record import Record
from nearkin.stores.shards import SHARDS, shard_of

#: Of each action, the metric's name in `core.evidence.Metric`.
METRICS = {
    "click": "CLICKS",
    "long_view": "LONG_VIEWS",
    "like": "LIKES",
    "save": "SAVES",
    "purchase": "PURCHASES",
    "skip": "SKIPS",
    "dislike": "DISLIKES",
    "hide": "HIDES",
    "report": "REPORTS",
}

#: What one user may do once within the window, whatever the clamp.
COMPLAINTS = {"skip", "dislike", "hide", "report"}


def default_prior(_surface: str, position: int) -> float:
    return 0.1 / math.log2(1 + position)


@dataclass
class Recount:
    """The sums at a moment.

    Attributes:
        pairs: of each anchor and candidate, by the metric's name; reserved anchors of the stream as a whole included.
        visits: of each item.
        all_visits: of the stream.
        refused: places of the records that break the contract, or are too late or early, as (topic, partition, offset).
        repeated: how many events had an event_id that the window held.
        clamped: how many were more than one user may do of the same.
    """

    pairs: dict[str, dict[str, dict[str, float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(lambda: defaultdict(float)))
    )
    visits: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    all_visits: float = 0.0
    refused: set[tuple[str, int, int]] = field(default_factory=set)
    repeated: int = 0
    clamped: int = 0


def recount(
    records: Iterable[Record],
    at_ms: int,
    *,
    half_life_ms: int = EvidenceRules().half_life_ms,
    window: int = 10_000,
    clamp: int = 5,
    most_partners: int = 400,
    prior: Callable[[str, int], float] = default_prior,
    surfaces: Collection[str] = (),
    clock: Literal["wall", "stream"] = "wall",
) -> Recount:
    """Count a log.

    Args:
        records: of any topics and partitions, each partition in the order of its offsets.
        at_ms: to when everything is decayed.
        half_life_ms: of the evidence.
        window: offsets in which a repeat is known.
        clamp: how often one user may do the same within it; what is a complaint once.
        most_partners: of one item in a visit.
        prior: of a surface and a position.
        surfaces: that the priors name.
        clock: by what an event is late or early.
    """
    sums = Recount()
    times: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    known: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)
    deeds: dict[tuple[str, int], dict[object, list[int]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        place = record.topic, record.partition
        try:
            event = (decode_feedback if record.topic == FEEDBACK.name else decode_visit)(record.key, record.value)
        except InvalidEvent:
            sums.refused.add((*place, record.offset))
            continue
        # What its own record's time refuses is not remembered. By the stream's time one is late beside others: then its
        # id is remembered, and not what it did.
        now_ms = record.timestamp_ms
        late = clock == "wall" and event.occurred_at < now_ms - MAX_LATENESS_MS
        if late or event.occurred_at > now_ms + MAX_AHEAD_MS:
            sums.refused.add((*place, record.offset))
            continue
        ids, done = known[place], deeds[place][_deed(event)]
        repeated = ids.get(event.event_id, -window - 1) >= record.offset - window
        most = 1 if isinstance(event, Interaction) and event.action.value in COMPLAINTS else clamp
        clamped = event.user is not None and sum(at >= record.offset - window for at in done) >= most
        ids[event.event_id] = record.offset
        if clock == "stream":
            times[place].append((record.offset, event.occurred_at))
            now_ms = max(at for offset, at in times[place] if offset >= record.offset - window)
        if event.occurred_at < now_ms - MAX_LATENESS_MS:
            sums.refused.add((*place, record.offset))
            continue
        done.append(record.offset)
        if repeated:
            sums.repeated += 1
        elif clamped:
            sums.clamped += 1
        else:
            weight = 2.0 ** ((event.occurred_at - at_ms) / half_life_ms)
            _add(sums, event, weight, most_partners, prior)
            _add_to_stream(sums, event, weight, surfaces)
    return sums


def _deed(event):
    if isinstance(event, Impressions):
        return event.user, event.anchor, frozenset(place.item_id for place in event.positions if place.visible)
    if isinstance(event, Interaction):
        return event.user, event.anchor, event.item_id, event.action.value
    return event.user, tuple(sorted(event.items))


def _add(sums, event, weight, most_partners, prior):
    if isinstance(event, Impressions):
        for place in event.positions:
            if place.visible:
                pair = sums.pairs[event.anchor][place.item_id]
                pair["EXPOSURES"] += weight
                pair["EXPECTED"] += weight * prior(event.surface, place.position)
    elif isinstance(event, Interaction):
        exposed = event.request_id is not None and event.position is not None
        sums.pairs[event.anchor][event.item_id][METRICS[event.action.value] if exposed else "UNEXPOSED"] += weight
    else:
        sums.all_visits += weight
        for item in event.items:
            sums.visits[item] += weight
        for item, partner, share in visit_pairs(event.visit_id, event.items, most_partners):
            sums.pairs[item][partner]["CO_VISITS"] += weight * share


def _add_to_stream(sums, event, weight, surfaces):
    """What is counted of the stream as a whole: under anchors of the shard of the event's own, or of each item's."""

    def add(name, of, candidate, metric, amount):
        sums.pairs[f"\0{name}:{shard_of(of)}"][candidate][metric] += amount

    if isinstance(event, Visit):
        for item in event.items:
            add("popular", item, item, "CO_VISITS", weight)
        return
    anchor, surface = event.anchor, event.surface
    if isinstance(event, Interaction):
        metric = METRICS[event.action.value]
        if metric in ("CLICKS", "LONG_VIEWS", "LIKES", "SAVES", "PURCHASES"):
            add("popular", anchor, event.item_id, metric, weight)
        if metric != "CLICKS" or surface is None or event.request_id is None or event.position is None:
            return
        shown, metric, in_sample = [(event.item_id, event.position, event.propensity)], "CLICKS", "EXPECTED"
    else:
        shown = [(place.item_id, place.position, place.propensity) for place in event.positions if place.visible]
        metric = in_sample = "EXPOSURES"
    for item, position, propensity in shown:
        add("surfaces", anchor, surface, metric, weight)
        if surface not in surfaces or position > 50:
            continue
        add(f"positions:{surface}", anchor, str(position), metric, weight)
        if propensity is not None and propensity < 1:
            inverse = 1 / max(propensity, 0.001)
            add(f"positions:{surface}", anchor, f"{position}/w", metric, weight * inverse)
            add(f"positions:{surface}", anchor, f"{position}/v", metric, weight * inverse**2)
            if metric == "EXPOSURES":
                add(f"positions:{surface}", anchor, f"{position}/w", "EXPECTED", weight)
        pair = crc32((anchor + item).encode())
        if pair % 16 == 0:
            add(f"sample:{surface}", anchor, f"{pair:08x}@{position}", in_sample, weight)


def find_strange_keys(recounted: Recount, keys: Iterable[bytes]) -> list[bytes]:
    """The keys of a Redis that a recount does not explain; what is there of an anchor is compared elsewhere."""
    anchors = {f"nk:{{{shard_of(anchor)}}}:{anchor}" for anchor in {*recounted.pairs, *recounted.visits}}
    known = anchors | {f"nk:{{{shard}}}" for shard in range(SHARDS)} | {"nk:priors", "nk:former"}
    return sorted(set(keys) - {key.encode() for key in known})


async def find_differences(recounted: Recount, store: EvidenceStore, at_ms: int, tolerance: float = 1e-9) -> list[str]:
    """Where a store holds something else than a recount: a line for each sum, none where all agree.

    Args:
        recounted: what it must hold.
        store: what holds it.
        at_ms: to when the recount is decayed.
        tolerance: the largest relative error.
    """

    def compare(what: str, held: float, wanted: float) -> list[str]:
        return [] if math.isclose(held, wanted, rel_tol=tolerance) else [f"{what}: {held!r}, not {wanted!r}"]

    found = []
    anchors = sorted({*recounted.pairs, *recounted.visits})
    for begin in range(0, len(anchors), 500):
        held = (await store.read(anchors[begin : begin + 500], (), at_ms)).anchors
        for anchor, evidence in held.items():
            found += compare(f"visits of {anchor}", evidence.visits, recounted.visits.get(anchor, 0.0))
            pairs = recounted.pairs.get(anchor, {})
            for candidate in sorted({*pairs, *evidence.candidates}):
                counts = {metric.name: count for metric, count in evidence.of(candidate).items()}
                wanted = pairs.get(candidate, {})
                for name in sorted({*counts, *wanted}):
                    what = f"{name} of {anchor} and {candidate}"
                    found += compare(what, counts.get(name, 0.0), wanted.get(name, 0.0))
    return found + compare("all visits", await store.read_visits(at_ms), recounted.all_visits)
