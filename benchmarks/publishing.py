"""Items published to a stack, and waited for until look-ups find them.

What is loaded goes through the bulk lane and is asked for by id; what is new goes through the live lane and is proved
by a search for its own content (`nearkin.client.prove_searchable`).
"""

import asyncio
import random
import time
from collections.abc import Iterable, Sequence

from nearkin.client.lookup import ItemStatus, LookupClient
from nearkin.client.producer import Producer
from nearkin.client.prove_searchable import Proofs
from nearkin.core.item import Content, Offer, Price
from nearkin.embedded.catalogue.online_retail import CatalogueItem

#: Items are left so long to be proved after the last was published.
PATIENCE_S = 60.0

#: One call takes so many ids, and the next follows after a pause where not all of them were visible. Asked ten times a
#: second, look-ups took a tenth of the processor that the load is to have; so a load is timed to half a second.
IDS_A_CALL, PAUSE_S = 1000, 0.5


def content_of(one: CatalogueItem) -> Content:
    return Content(title=one.title, language="en")


def offer_of(one: CatalogueItem) -> Offer:
    return Offer(price=Price(one.price, one.currency), markets=one.markets)


def send_in_bulk(producer: Producer, items: Iterable[CatalogueItem]) -> None:
    """Publish items on the bulk lane, as fast as the broker takes them."""
    for one in items:
        producer.upsert(one.id, content_of(one), offer=offer_of(one), bulk=True)
    producer.flush()


async def until_visible(lookups: LookupClient, ids: Iterable[str]) -> None:
    """Ask until every item is visible."""
    waiting = list(ids)
    while waiting:
        records = await lookups.items(waiting[:IDS_A_CALL])
        seen = {one.id for one in records if one.status is ItemStatus.VISIBLE}
        waiting = [one for one in waiting[:IDS_A_CALL] if one not in seen] + waiting[IDS_A_CALL:]
        if len(seen) < IDS_A_CALL:
            await asyncio.sleep(PAUSE_S)


async def prove(producer: Producer, lookups: LookupClient, items: Sequence[CatalogueItem], rate: float) -> Proofs:
    """Publish new items at a rate, and wait until each is proved visible or `PATIENCE_S` has passed."""
    proofs = Proofs()
    following = asyncio.create_task(proofs.follow(lookups))
    await _publish(producer, items, rate, proofs)
    deadline = time.perf_counter() + PATIENCE_S
    while proofs.waiting and time.perf_counter() < deadline and not following.done():  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    if following.done():
        following.result()
    following.cancel()
    return proofs


async def _publish(producer: Producer, items: Sequence[CatalogueItem], rate: float, proofs: Proofs) -> None:
    """Publish items with exponential gaps; a time counts from the moment that was meant."""
    gaps = random.Random(1)
    meant = time.perf_counter()
    for one in items:
        meant += gaps.expovariate(rate)
        await asyncio.sleep(max(0.0, meant - time.perf_counter()))
        content = content_of(one)
        proofs.expect(one.id, content, meant)
        producer.upsert(one.id, content, offer=offer_of(one), bulk=False)
