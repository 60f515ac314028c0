"""Publishes many items, and waits until the index holds them."""

import asyncio
import time
from collections.abc import Callable, Sequence

from nearkin.client.lookup import ItemStatus, LookupClient
from nearkin.core.errors import TemporaryError, Unavailable

#: How long a load may take without any progress, in seconds.
PATIENCE_S = 120.0

_THERE = (ItemStatus.VISIBLE, ItemStatus.HIDDEN)

#: One call asks for so many items; where not all of them are there, the next follows after a pause in seconds.
_IDS_A_CALL, _PAUSE_S = 1000, 0.2


async def load_items(
    publish: Callable[[], None], ids: Sequence[str], lookups: LookupClient, arrived: Callable[[int], None]
) -> None:
    """Publish items, and return when the index holds all of them.

    Args:
        publish: sends them, and returns when the broker has them; runs in a thread.
        ids: of the items.
        lookups: is asked for them.
        arrived: told how many are there, again and again.

    Raises:
        Unavailable: for `PATIENCE_S` no item arrived.
    """
    publishing = asyncio.create_task(asyncio.to_thread(publish))
    waiting = list(ids)
    moved = time.perf_counter()
    while waiting:
        if publishing.done():
            await publishing
        try:
            records = await lookups.items(waiting[:_IDS_A_CALL])
        except TemporaryError:
            records = []
        found = {one.id for one in records if one.status in _THERE}
        if found:
            moved = time.perf_counter()
        waiting = [one for one in waiting if one not in found]
        arrived(len(ids) - len(waiting))
        if time.perf_counter() - moved > PATIENCE_S:
            raise Unavailable("indexer", f"{len(waiting)} items of the load do not arrive, {waiting[0]!r} first")
        if len(found) < _IDS_A_CALL and waiting:
            await asyncio.sleep(_PAUSE_S)
    await publishing
