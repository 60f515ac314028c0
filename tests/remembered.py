"""Puts feedback into a store of evidence as the worker would, without a broker."""

import itertools
import time

from nearkin.core.counting import Counting, count
from nearkin.core.evidence import Effect, EvidenceRules, ShardBatch, Source, Tally
from nearkin.core.feedback import Action, Impressions, Interaction, Shown, Visit, VisitKind
from nearkin.core.ports import EvidenceStore
from nearkin.stores.shards import SHARDS, shard_of

_numbers = itertools.count()


def visit(*items: str, at_ms: int | None = None) -> Visit:
    """A basket."""
    number = f"visit-{next(_numbers)}"
    return Visit(number, at_ms or now_ms(), number, VisitKind.BASKET, items)


def slate(anchor: str, *items: str) -> Impressions:
    """What somebody had before them, all of it visible."""
    number = f"slate-{next(_numbers)}"
    shown = tuple(Shown(item_id, position) for position, item_id in enumerate(items, 1))
    return Impressions(number, now_ms(), anchor, number, "page", shown)


def acted(anchor: str, item_id: str, action: Action, position: int = 1) -> Interaction:
    """What somebody did with an item of a slate."""
    number = f"action-{next(_numbers)}"
    return Interaction(number, now_ms(), anchor, item_id, action, request_id=number, position=position, surface="page")


def now_ms() -> int:
    """The wall's time."""
    return time.time_ns() // 1_000_000


async def remember(store: EvidenceStore, *events: Impressions | Interaction | Visit) -> None:
    """Count events, once each."""
    half_life = EvidenceRules().half_life_ms
    tallies = [Tally(half_life) for _ in range(SHARDS)]
    for event in events:
        count(event, tallies, Counting(shard_of))
    start = next(_numbers)
    source = Source(f"topic-{start}", 0)
    batches = [
        ShardBatch(source, shard, 0, 1, tally.landmark, tally.deltas(), tally.visits, tally.newest_ms)
        for shard, tally in enumerate(tallies)
        if tally.newest_ms
    ]
    assert {one.effect for one in await store.apply(batches)} <= {Effect.APPLIED}
