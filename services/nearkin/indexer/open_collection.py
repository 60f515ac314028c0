"""Open the collection that an indexer writes: the one of its bundle, and only if look-ups search it too.

An indexer that wrote to one collection while look-ups search another would look healthy, and nothing that it indexes
would ever be found. So it is asked before the collection is made, again afterwards, because two indexers with two
bundles may both find an index in which nothing serves yet, and as long as the indexer runs.
"""

import asyncio
import contextlib
import logging

from nearkin.core.errors import Misconfigured, Unavailable
from nearkin.core.ports import ContentEncoder, ItemCollection, ItemIndex
from nearkin.ops.logs import fields

log = logging.getLogger(__name__)


async def open_collection(index: ItemIndex, encoder: ContentEncoder, alias: str) -> ItemCollection:
    """The collection of the encoder's bundle, made if nothing serves yet.

    Args:
        index: where it lies.
        encoder: of the bundle.
        alias: the index's, to name it to a person.

    Raises:
        Misconfigured: the index serves another bundle, or its collection is not as it must be.
        Unavailable: the index does not answer.
    """
    try:
        serving = await index.serving()
    except Unavailable:  # nothing serves yet; or the index is away, which preparing tells
        serving = None
    if serving is not None:
        _require_own(serving, encoder, alias)
    items = await index.prepare(encoder.bundle, encoder.dimensions)
    _require_own(await index.serving(), encoder, alias)
    return items


async def tell_switches(index: ItemIndex, items: ItemCollection, every_s: float) -> None:
    """Say it in the log when the alias is switched away from an indexer's collection, and back."""
    serves = items.name
    while True:
        with contextlib.suppress(Unavailable):
            serving = await index.serving()
            if serving.name != serves:
                serves = serving.name
                if serves == items.name:
                    log.info("the index serves what this indexer writes again", extra=fields(collection=items.name))
                else:
                    log.warning(
                        "the index serves another collection than this indexer writes: what it indexes is not found "
                        "until it is restarted with NEARKIN_BUNDLE_PATH set to the bundle that serves",
                        extra=fields(collection=items.name, index=serves, bundle=serving.bundle),
                    )
        await asyncio.sleep(every_s)


def _require_own(serving: ItemCollection, encoder: ContentEncoder, alias: str) -> None:
    if not serving.name.startswith(f"{alias}-"):
        raise Misconfigured(
            f"the alias {alias!r} names the collection {serving.name!r}, which Nearkin did not make",
            field="NEARKIN_INDEX_ALIAS",
            remedy="set it to a name that nothing has yet, or take the alias off that collection, and publish the "
            "items again",
            reason="collection",
        )
    if serving.bundle != encoder.bundle:
        raise Misconfigured(
            f"the alias {alias!r} names the collection {serving.name!r}, with items of bundle {serving.bundle!r}, but "
            f"this indexer encodes with {encoder.bundle!r}: what it indexed would not be found",
            field="NEARKIN_BUNDLE_PATH",
            remedy=f"set it to the bundle {serving.bundle!r}, or give an empty index (another NEARKIN_INDEX_ALIAS, or "
            "another --data folder of `nearkin up`) and publish the items again",
            reason="bundle",
        )
