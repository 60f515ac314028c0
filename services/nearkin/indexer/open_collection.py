"""Open the collection that an indexer writes: the one of its bundle, and only if look-ups search it too.

An indexer that wrote to one collection while look-ups search another would look healthy, and nothing that it indexes
would ever be found.
"""

from nearkin.core.errors import Misconfigured, Unavailable
from nearkin.core.ports import ContentEncoder, ItemCollection, ItemIndex


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
    if serving is not None and not serving.name.startswith(f"{alias}-"):
        raise Misconfigured(
            f"the alias {alias!r} names the collection {serving.name!r}, which Nearkin did not make",
            field="NEARKIN_INDEX_ALIAS",
            remedy="set it to a name that nothing has yet, or take the alias off that collection, and publish the "
            "items again",
            reason="collection",
        )
    if serving is not None and serving.bundle != encoder.bundle:
        raise Misconfigured(
            f"the alias {alias!r} names the collection {serving.name!r}, with items of bundle {serving.bundle!r}, but "
            f"this indexer encodes with {encoder.bundle!r}: what it indexed would not be found",
            field="NEARKIN_BUNDLE_PATH",
            remedy=f"set it to the bundle {serving.bundle!r}, or give an empty index (another NEARKIN_INDEX_ALIAS, or "
            "another --data folder of `nearkin up`) and publish the items again",
            reason="bundle",
        )
    return await index.prepare(encoder.bundle, encoder.dimensions)
