"""Proves from outside that items can be found: a search by an item's content must return the item itself.

Searching for every item all the time would slow down what is measured. So a cheap question, asked every few
milliseconds for all items that wait (`GetItems`), says when a search may succeed; only then is it made, by meaning
alone: a point is written whole, so what one of its vectors finds is found by both. An item counts as visible when that
search's answer is here, so the time is late by at most one interval and one answer, never early.
"""

import asyncio
import time
from dataclasses import dataclass, field

from nearkin.client.lookup import DEFAULT_TIMEOUT_S, ItemStatus, LookupClient
from nearkin.core.errors import TemporaryError
from nearkin.core.filters import ItemFilter
from nearkin.core.item import Content
from nearkin.core.retrieval import Retrieval

#: The pause between an answer and the next question, in seconds.
POLL_S = 0.005

#: One call takes so many ids.
_IDS_IN_CALL = 1_000


async def is_found(
    lookups: LookupClient,
    item_id: str,
    content: Content,
    *,
    filter: ItemFilter | None = None,  # noqa: A002  # the contract's word
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> bool:
    """Whether a search by an item's own content returns the item now: the proof itself.

    Raises:
        NearkinError: the search has no answer.
    """
    answer = await lookups.similar(content=content, k=10, filter=filter, retrieval=Retrieval.DENSE, timeout_s=timeout_s)
    return any(neighbour.id == item_id for neighbour in answer.neighbours)


@dataclass(slots=True)
class Proofs:
    """What is known of the items that wait, and of those that were found.

    Attributes:
        waiting: for each item that is not yet found, its content and the time it was published.
        seconds: for each item that was found, the time from its publication to the answer that held it.
        poll_gaps: seconds between two questions.
        searches: how many searches were made.
    """

    waiting: dict[str, tuple[Content, float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    poll_gaps: list[float] = field(default_factory=list)
    searches: int = 0

    def expect(self, item_id: str, content: Content, published_at: float) -> None:
        """Wait for an item; `published_at` is of `time.perf_counter`."""
        self.waiting[item_id] = (content, published_at)

    async def follow(self, lookups: LookupClient) -> None:
        """Ask until cancelled."""
        searching: dict[str, asyncio.Task[None]] = {}
        asked = 0.0
        try:
            while True:
                await asyncio.sleep(POLL_S)
                if asked and self.waiting:
                    self.poll_gaps.append(time.perf_counter() - asked)
                asked = time.perf_counter()
                for item_id in [one for one, search in searching.items() if search.done()]:
                    searching.pop(item_id).result()
                ids = [one for one in self.waiting if one not in searching][:_IDS_IN_CALL]
                if not ids:
                    continue
                try:
                    records = await lookups.items(ids)
                except TemporaryError:
                    continue  # the item is not proved meanwhile, and its time runs
                for record in records:
                    if record.status is ItemStatus.VISIBLE:
                        searching[record.id] = asyncio.create_task(self._search(lookups, record.id))
        finally:
            for search in searching.values():
                search.cancel()

    async def _search(self, lookups: LookupClient, item_id: str) -> None:
        content, published_at = self.waiting[item_id]
        self.searches += 1
        try:
            found = await is_found(lookups, item_id, content)
        except TemporaryError:
            return
        now = time.perf_counter()
        if found:
            del self.waiting[item_id]
            self.seconds[item_id] = now - published_at
