"""An indexer writes where look-ups search, or not at all."""

import pytest

from nearkin.core.errors import Misconfigured
from nearkin.encoders.fake import HashingEncoder
from nearkin.indexer.open_collection import open_collection
from nearkin.stores.memory import MemoryCollection, MemoryIndex


async def test_the_first_indexer_makes_the_collection_that_serves() -> None:
    index = MemoryIndex("items")
    items = await open_collection(index, HashingEncoder(bundle="a"), "items")
    assert (await index.serving()).name == items.name


async def test_a_second_indexer_of_the_same_bundle_opens_the_same_collection() -> None:
    index = MemoryIndex("items")
    first = await open_collection(index, HashingEncoder(bundle="a"), "items")
    assert (await open_collection(index, HashingEncoder(bundle="a"), "items")).name == first.name


async def test_an_indexer_of_another_bundle_is_refused_and_makes_nothing() -> None:
    index = MemoryIndex("items")
    await open_collection(index, HashingEncoder(bundle="a"), "items")
    with pytest.raises(
        Misconfigured, match=r"the alias 'items' names.*'items-a'.*of bundle 'a'.*encodes with 'b'"
    ) as refused:
        await open_collection(index, HashingEncoder(bundle="b"), "items")
    assert refused.value.field == "NEARKIN_BUNDLE_PATH"
    assert (await index.serving()).bundle == "a"


async def test_a_collection_of_somebody_else_is_named_with_its_alias_and_left_alone() -> None:
    theirs = MemoryCollection("photos", "photos", 3)
    index = MemoryIndex("items", serving_name="photos", _collections={"photos": theirs})
    with pytest.raises(Misconfigured, match=r"the alias 'items' names.*'photos'.*Nearkin did not make") as refused:
        await open_collection(index, HashingEncoder(bundle="a"), "items")
    assert refused.value.field == "NEARKIN_INDEX_ALIAS"
    assert "BUNDLE" not in str(refused.value)
    assert await index.serving() is theirs
