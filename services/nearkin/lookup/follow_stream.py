"""Keeps at hand what look-ups need to know of the stream as a whole, so that none of them has to ask for it.

All visits, the newest event's time, the version of the position priors and what is visited most change slowly; they are
read in the background. What was read last holds while an engine is away.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from nearkin.core.counting import popular_anchor
from nearkin.core.errors import NearkinError
from nearkin.core.evidence import strength
from nearkin.core.ports import EvidenceStore, ItemIndex
from nearkin.lookup.engines import Engine
from nearkin.ops.logs import describe, fields
from nearkin.stores.shards import SHARDS

log = logging.getLogger(__name__)

#: How often the counts and the clock are read, and how often what is popular, in seconds.
COUNTS_EVERY_S = 1.0
POPULAR_EVERY_S = 15.0

#: How long one reading may take, in seconds: nobody waits for it.
BUDGET_S = 5.0

#: So many of the most visited items are told by category; so many are remembered of each category.
MOST_POPULAR = 4_000
MOST_OF_CATEGORY = 50

_READ_AT_ONCE = 8


class Stream:
    """What is known of the stream.

    Args:
        store: where the evidence is.
        index: where the items are: what is popular is told by their categories.
        evidence: the engine behind `store`.
        items: the engine behind `index`.
        clock: whether now is the wall's time or that of the newest event, as where a log of the past is replayed.

    Attributes:
        all_visits: of all items, decayed to the moment when they were read.
        priors_version: of the position priors in force; empty before they were read.
        problem: why the evidence could not be read last; empty where it could.
    """

    def __init__(
        self,
        store: EvidenceStore,
        index: ItemIndex,
        evidence: Engine,
        items: Engine,
        clock: Literal["wall", "stream"] = "wall",
    ) -> None:
        self._store, self._index, self._evidence, self._items, self._clock = store, index, evidence, items, clock
        self._newest_ms = 0
        self._popular: dict[str, list[str]] = {}
        self.all_visits = 0.0
        self.priors_version = ""
        self.problem = "starting"

    @property
    def can_answer_alone(self) -> bool:
        """Whether the evidence can be asked, and holds anything."""
        return not self.problem and self._newest_ms > 0

    def now_ms(self) -> int:
        """The time on the clock in force, in milliseconds since the epoch."""
        if self._clock == "stream" and self._newest_ms:
            return self._newest_ms
        return time.time_ns() // 1_000_000

    def popular(self, categories: Sequence[str], most: int) -> list[str]:
        """What is visited most in some categories, or if they hold too little, in the broader ones around them.

        Args:
            categories: keys of whole paths; none for everything.
            most: how many items at most.
        """
        keys = {key[:end]: None for key in categories for end in _ends(key)}
        chosen: dict[str, None] = {}
        for key in (*sorted(keys, key=lambda one: -one.count("/")), ""):
            for item_id in self._popular.get(key, ()):
                if len(chosen) == most:
                    return list(chosen)
                chosen[item_id] = None
        return list(chosen)

    async def follow(self) -> None:
        """Read again and again, until cancelled."""
        popular_at = -POPULAR_EVERY_S
        while True:
            self.problem = await _problem(self.read_counts)
            due = not self.problem and time.monotonic() - popular_at >= POPULAR_EVERY_S
            # It needs the index, too: without it, what was popular last holds, and the evidence answers as before.
            if due and not await _problem(self.read_popular):
                popular_at = time.monotonic()
            await asyncio.sleep(COUNTS_EVERY_S)

    async def read_counts(self) -> None:
        """Read all visits, the newest event's time and the priors' version.

        Raises:
            Unavailable: the store does not answer.
        """
        store = self._store
        self._newest_ms = await self._evidence.ask(store.read_newest, BUDGET_S)
        self.all_visits = await self._evidence.ask(lambda: store.read_visits(self.now_ms()), BUDGET_S)
        self.priors_version = str((await self._evidence.ask(store.read_priors, BUDGET_S)).version)

    async def read_popular(self) -> None:
        """Read what is visited most, and in which categories that is.

        Raises:
            Unavailable: the store or the index does not answer.
        """
        collection = await self._items.ask(self._index.serving, BUDGET_S)
        visits: dict[str, float] = {}
        anchors = [popular_anchor(shard) for shard in range(SHARDS)]
        for start in range(0, len(anchors), _READ_AT_ONCE):
            some = anchors[start : start + _READ_AT_ONCE]
            read = await self._evidence.ask(lambda: self._store.read(some, [], self.now_ms()), BUDGET_S)  # noqa: B023  # awaited here
            for held in read.anchors.values():
                for item_id, counts in zip(held.candidates, held.counts.tolist(), strict=True):
                    visits[item_id] = visits.get(item_id, 0.0) + strength(counts)
        ranked = sorted(visits, key=lambda item_id: (-visits[item_id], item_id))[:MOST_POPULAR]
        by_category: dict[str, list[str]] = {"": ranked[:MOST_OF_CATEGORY]}
        facts = await self._items.ask(lambda: collection.read_facts(ranked), BUDGET_S) if ranked else {}
        for item_id in ranked:
            if (known := facts.get(item_id)) is None:
                continue
            for key in dict.fromkeys(path[:end] for path in known.categories for end in _ends(path)):
                held_of = by_category.setdefault(key, [])
                if len(held_of) < MOST_OF_CATEGORY:
                    held_of.append(item_id)
        self._popular = by_category


async def _problem(read: Callable[[], Awaitable[None]]) -> str:
    """Read, and say what is wrong where that cannot be done."""
    try:
        await read()
    except NearkinError as error:
        return str(error)
    except Exception as error:
        problem = f"it fails in a way that is not foreseen: {describe(error)}"
        log.error("what is known of the stream cannot be read", extra=fields(problem=problem))
        return problem
    return ""


def _ends(key: str) -> list[int]:
    """Where the beginnings of a category path end that are paths themselves, the whole one included."""
    return [place for place, letter in enumerate(key) if letter == "/"] + [len(key)]
