"""An indexer writes where look-ups search, or not at all."""

import asyncio
import logging

import pytest

from nearkin.core.errors import Misconfigured
from nearkin.encoders.fake import HashingEncoder
from nearkin.indexer.open_collection import open_collection, tell_switches
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


async def test_of_two_first_indexers_with_two_bundles_the_one_that_look_ups_do_not_search_is_refused() -> None:
    class Overtaken(MemoryIndex):
        """An index in which another indexer's collection serves as soon as this one has found that none does."""

        async def prepare(self, bundle: str, dimensions: int) -> MemoryCollection:
            await super().prepare("a", dimensions)
            return await super().prepare(bundle, dimensions)

    with pytest.raises(Misconfigured, match=r"of bundle 'a'.*encodes with 'b'"):
        await open_collection(Overtaken("items"), HashingEncoder(bundle="b"), "items")


async def test_an_indexer_says_it_when_look_ups_are_switched_away_from_what_it_writes_and_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    index = MemoryIndex("items")
    items = await open_collection(index, HashingEncoder(bundle="a"), "items")
    await index.prepare("b", 32)
    caplog.set_level(logging.INFO)
    telling = asyncio.create_task(tell_switches(index, items, 0.001))
    try:
        for serving, said in (("items-b", "another collection than this"), ("items-a", "writes again")):
            index.serving_name = serving
            async with asyncio.timeout(30):
                while said not in caplog.text:  # noqa: ASYNC110  # a log announces nothing
                    await asyncio.sleep(0.001)
        index.serving_name = ""
        await asyncio.sleep(0.01)
        assert not telling.done(), "an index that does not answer is no switch"
        assert len(caplog.records) == 2, "each switch is said once"
    finally:
        telling.cancel()
