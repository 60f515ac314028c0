"""A backlog on the bulk lane, and a new item on the live lane that does not wait for it."""

import pytest

from faults.item_stream import Event, upsert
from faults.running_parts import Parts
from nearkin.contracts.topics import ITEMS_BULK
from nearkin.core.ports import ItemCollection, Search
from nearkin.core.vectors import VectorName
from nearkin.embedded.catalogue.online_retail import load_catalogue
from waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BACKLOG = 20_000


def test_new_items_are_found_while_twenty_thousand_wait_on_the_bulk_lane(parts: Parts) -> None:
    catalogue = load_catalogue()
    parts.start(parts.broker, parts.index)
    parts.start(parts.live, parts.bulk)
    backlog = [upsert(f"old-{at}", f"{catalogue[at % len(catalogue)].title} {at}", version=at) for at in range(BACKLOG)]
    parts.streams.publish(backlog, ITEMS_BULK)
    for at in range(5):
        new = upsert(f"new-{at}", f"{catalogue[at].title} of a new kind")
        parts.streams.publish([new])
        until(lambda new=new: parts.look_inside(lambda items: _is_found(items, new)), f"{new.state.id} is found")  # type: ignore[misc]
    waiting = BACKLOG - parts.bulk.counted("events_total")
    print(f"{waiting:.0f} of {BACKLOG} still waited when the last new item was found")
    assert waiting > 0, "the backlog was gone before: the test shows less than it says"


async def _is_found(items: ItemCollection, event: Event) -> bool:
    """Whether a search returns an item: here the item of the index that is nearest to the new one returns it."""
    if event.state.id not in await items.read([event.state.id]):
        return False
    (near,) = await items.search([Search(VectorName.CONTENT, event.state.id, limit=1)])
    if not near:
        return False
    (back,) = await items.search([Search(VectorName.CONTENT, near[0].id, limit=1000)])
    return event.state.id in [hit.id for hit in back]
