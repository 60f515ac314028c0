"""What every index does, whichever engine stands behind it."""

import asyncio
import os
from dataclasses import replace

import numpy as np
import pytest

from nearkin.core.candidates import ItemFacts
from nearkin.core.errors import Misconfigured, Unavailable
from nearkin.core.filters import ItemFilter, PriceRange
from nearkin.core.item import Availability, Content, Offer, Price, Status, Versions, merge, upserted
from nearkin.core.ports import IndexCounts, IndexedItem, ItemCollection, ItemIndex, ItemWrite, Search, Stored
from nearkin.core.vectors import SparseVector, VectorName
from nearkin.ops.settings import Settings
from nearkin.stores.qdrant import connect
from stores.made_items import (
    DIMENSIONS,
    delete,
    dense,
    indexed,
    insert,
    insert_offer,
    lexical,
    random_vectors,
    reoffer,
    vectors,
)

SERVER_VARIABLE = "NEARKIN_TEST_QDRANT_URL"

NEAR, FAR = vectors(1.0, 0.1, t1=1.0), vectors(0.0, 1.0, t1=1.0)


@pytest.fixture
async def items(index: ItemIndex) -> ItemCollection:
    """An empty collection."""
    return await index.prepare("bundle-a", DIMENSIONS)


async def found(items: ItemCollection, query: str, filter_: ItemFilter | None = None, limit: int = 10) -> list[str]:
    (hits,) = await items.search([Search(VectorName.CONTENT, query, limit, filter_ or ItemFilter())])
    return [hit.id for hit in hits]


@pytest.mark.skipif(
    not os.environ.get(SERVER_VARIABLE),
    reason=f"this suite did not run on a real Qdrant server: set {SERVER_VARIABLE} to the gRPC address of one",
)
async def test_a_real_server_answers(alias: str) -> None:
    index = connect(Settings(qdrant_url=os.environ[SERVER_VARIABLE], index_alias=alias))
    with pytest.raises(Unavailable, match="no collection serves"):
        await index.serving()
    await index.close()


class TestCollections:
    async def test_nothing_serves_before_a_collection_is_prepared(self, index: ItemIndex) -> None:
        with pytest.raises(Unavailable, match="no collection serves"):
            await index.serving()

    async def test_the_first_collection_serves_and_names_its_bundle(self, index: ItemIndex, alias: str) -> None:
        await index.prepare("bundle-a", DIMENSIONS)
        await index.prepare("bundle-b", DIMENSIONS + 1)
        serving = await index.serving()
        assert (serving.name, serving.bundle) == (f"{alias}-bundle-a", "bundle-a")

    async def test_preparing_again_keeps_what_is_held(self, index: ItemIndex, items: ItemCollection) -> None:
        await items.write([insert("a", NEAR)])
        again = await index.prepare("bundle-a", DIMENSIONS)
        assert set(await again.read(["a"])) == {"a"}

    async def test_a_collection_of_other_dimensions_is_refused_with_the_remedy(self, index: ItemIndex) -> None:
        await index.prepare("bundle-a", DIMENSIONS)
        with pytest.raises(Misconfigured, match=r"bundle-a: .* 8 dimensions, the bundle makes 9; .* publish the items"):
            await index.prepare("bundle-a", DIMENSIONS + 1)

    async def test_two_processes_may_prepare_at_once(self, index: ItemIndex) -> None:
        made = await asyncio.gather(*(index.prepare("bundle-a", DIMENSIONS) for _ in range(3)))
        assert len({collection.name for collection in made}) == 1

    async def test_items_of_two_bundles_do_not_meet(self, index: ItemIndex) -> None:
        first = await index.prepare("bundle-a", DIMENSIONS)
        second = await index.prepare("bundle-b", DIMENSIONS)
        await first.write([insert("a", NEAR), insert("b", NEAR)])
        assert await second.read(["a"]) == {}
        assert await found(second, "a") == []


class TestReadingAndWriting:
    async def test_what_is_written_is_read_back_whole(self, items: ItemCollection) -> None:
        content = Content(title="Mug", categories=(("home", "mugs"),), tags=("red",), attributes={"size": "L"})
        offer = Offer(Price(3.5, "GBP"), Availability.PREORDER, ("GB", "FR"))
        write = insert("mug", NEAR, 2**53 - 1, content, offer)
        assert await items.write([write]) == frozenset()
        assert await items.read(["mug", "unknown"]) == {"mug": write.item}

    async def test_ids_of_any_script_are_kept(self, items: ItemCollection) -> None:
        ids = ["a/b", "κούπα", "杯", "x" * 200, "-1"]
        await items.write([insert(item_id, NEAR) for item_id in ids])
        assert set(await items.read(ids)) == set(ids)

    async def test_nothing_asked_is_nothing_answered(self, items: ItemCollection) -> None:
        assert await items.read([]) == {}
        assert await items.read_facts([]) == {}
        assert await items.write([]) == frozenset()
        assert await items.search([]) == []

    async def test_an_item_that_moved_on_is_not_overwritten(self, items: ItemCollection) -> None:
        await items.write([insert("a", NEAR, 5)])
        newer = ItemWrite(indexed(upserted("a", Content(title="newer"), 6)), Versions(content=5), FAR)
        assert await items.write([newer]) == frozenset()
        late = ItemWrite(indexed(upserted("a", Content(title="late"), 7)), Versions(content=5), NEAR)
        assert await items.write([late]) == {"a"}
        assert (await items.read(["a"]))["a"] == newer.item

    @pytest.mark.parametrize("held", [Versions(4, -1, -1), Versions(5, 3, -1), Versions(5, -1, 2)])
    async def test_every_version_is_compared(self, items: ItemCollection, held: Versions) -> None:
        await items.write([insert("a", NEAR, 5)])
        write = ItemWrite(indexed(upserted("a", Content(title="late"), 9)), held, FAR)
        assert await items.write([write]) == {"a"}

    async def test_of_two_first_writes_the_second_loses(self, items: ItemCollection) -> None:
        assert await items.write([insert("a", NEAR, 5)]) == frozenset()
        assert await items.write([insert("a", FAR, 9), insert("b", FAR, 9)]) == {"a"}
        assert (await items.read(["a"]))["a"].state.content_version == 5

    async def test_of_first_writes_at_once_one_wins_and_the_others_know(self, items: ItemCollection) -> None:
        ids = [f"i{number}" for number in range(20)]
        outcomes = await asyncio.gather(
            *(items.write([insert(item_id, NEAR, version) for item_id in ids]) for version in (1, 2, 3))
        )
        held = await items.read(ids)
        for item_id in ids:
            winners = [version for version, lost in zip((1, 2, 3), outcomes, strict=True) if item_id not in lost]
            assert winners == [held[item_id].state.content_version]

    async def test_a_batch_mixes_new_changed_and_late_items(self, items: ItemCollection) -> None:
        first = [insert("changed", NEAR, 1), insert("offered", NEAR, 1), insert("late", NEAR, 1)]
        await items.write(first)
        batch = [
            insert("new", FAR),
            ItemWrite(indexed(upserted("changed", Content(title="changed"), 2)), Versions(content=1), FAR),
            reoffer(first[1].item.state, Offer(Price(1.0, "GBP")), 4),
            ItemWrite(indexed(upserted("late", Content(title="late"), 3)), Versions(content=2), FAR),
        ]
        assert await items.write(batch) == {"late"}
        held = await items.read(["new", "changed", "offered", "late"])
        versions = {item_id: item.state.versions for item_id, item in held.items()}
        assert versions == {
            "new": Versions(content=1),
            "changed": Versions(content=2),
            "offered": Versions(content=1, offer=4),
            "late": Versions(content=1),
        }

    async def test_a_change_of_the_payload_keeps_the_vectors(self, items: ItemCollection) -> None:
        first = insert("a", NEAR)
        await items.write([first, insert("b", NEAR)])
        assert await items.write([reoffer(first.item.state, Offer(markets=("FR",)), 9)]) == frozenset()
        (hits,) = await items.search([Search(VectorName.CONTENT, NEAR.content, 10)])
        assert {hit.id for hit in hits} == {"a", "b"}
        assert await found(items, "b", ItemFilter(market="GB")) == []

    async def test_a_late_change_of_the_payload_loses(self, items: ItemCollection) -> None:
        first = insert("a", NEAR, 3)
        await items.write([first])
        late = reoffer(first.item.state, Offer(markets=("FR",)), 9, expected=Versions(content=2))
        assert await items.write([late]) == {"a"}
        assert (await items.read(["a"]))["a"] == first.item

    async def test_a_change_of_the_payload_of_an_item_that_is_not_held_loses(self, items: ItemCollection) -> None:
        missing = upserted("a", Content(title="a"), 1)
        assert await items.write([reoffer(missing, Offer(), 9)]) == {"a"}
        assert await items.read(["a"]) == {}

    async def test_vectors_that_are_not_finite_refuse_the_whole_batch(self, items: ItemCollection) -> None:
        poisoned = vectors(1.0, t1=1.0)
        poisoned.content[3] = np.nan
        with pytest.raises(ValueError, match="content vector of item 'bad' holds NaN"):
            await items.write([insert("good", NEAR), insert("bad", poisoned)])
        with pytest.raises(ValueError, match="lexical vector of item 'bad'"):
            await items.write([insert("bad", vectors(1.0, t1=float("inf")))])
        assert await items.read(["good", "bad"]) == {}

    async def test_a_batch_with_two_writes_of_one_item_is_refused(self, items: ItemCollection) -> None:
        with pytest.raises(ValueError, match="two writes of item 'a'; merge them"):
            await items.write([insert("a", NEAR), insert("a", FAR, 2)])

    async def test_vectors_cannot_be_kept_where_none_are_held(self, items: ItemCollection) -> None:
        with pytest.raises(ValueError, match="no stored vectors to keep"):
            await items.write([ItemWrite(insert("a", NEAR).item, None, Stored.VECTORS)])


class TestFacts:
    async def test_facts_are_read_of_what_has_content_whether_it_may_be_shown_or_not(
        self, items: ItemCollection
    ) -> None:
        mug = insert("mug", NEAR, content=MUG, offer=MUG_OFFER)
        gone = insert("gone", NEAR)
        await items.write(
            [
                replace(mug, item=replace(mug.item, first_seen=7, sketch=bytes(range(32)))),
                insert("hidden", NEAR, content=Content(title="hidden", status=Status.HIDDEN)),
                insert_offer("pending"),
                gone,
            ]
        )
        await items.write([delete(gone.item.state, 2)])
        assert await items.read_facts(["mug", "hidden", "pending", "gone", "unknown"]) == {
            "mug": MUG_FACTS,
            "hidden": ItemFacts("hidden", "hidden"),
        }

    async def test_facts_follow_a_change_of_the_offer(self, items: ItemCollection) -> None:
        first = insert("a", NEAR)
        await items.write([first, insert("b", NEAR)])
        assert await found(items, "b") == ["a"]
        assert (await items.read_facts(["a"]))["a"].price is None
        await items.write([reoffer(first.item.state, Offer(Price(2.5, "EUR"), markets=("FR",)), 9)])
        assert await items.read_facts(["a"]) == {
            "a": ItemFacts("a", "title of a", price=2.5, currency="EUR", markets=("FR",))
        }

    async def test_facts_of_many_items_are_read_at_once(self, items: ItemCollection) -> None:
        ids = [f"i{number}" for number in range(300)]
        await items.write([insert(item_id, NEAR) for item_id in ids])
        facts = await items.read_facts(ids)
        assert {item_id: one.title for item_id, one in facts.items()} == {one: f"title of {one}" for one in ids}


class TestTombstones:
    async def test_a_deleted_item_is_held_and_found_nowhere(self, items: ItemCollection) -> None:
        first = insert("a", NEAR, 1)
        await items.write([first, insert("b", NEAR)])
        assert await items.write([delete(first.item.state, 2)]) == frozenset()
        assert (await items.read(["a"]))["a"].state.is_deleted
        assert await found(items, "b") == []
        assert await found(items, "a") == []
        assert await items.count() == IndexCounts(points=1, tombstones=1)

    async def test_a_first_write_loses_to_a_tombstone(self, items: ItemCollection) -> None:
        first = insert("a", NEAR, 1)
        await items.write([first])
        await items.write([delete(first.item.state, 5)])
        assert await items.write([insert("a", NEAR, 4)]) == {"a"}

    async def test_a_newer_upsert_revives_the_item(self, items: ItemCollection) -> None:
        first = insert("a", NEAR, 1)
        await items.write([first, insert("b", NEAR)])
        tombstone = delete(first.item.state, 5)
        await items.write([tombstone])
        revived = merge(tombstone.item.state, upserted("a", Content(title="back"), 6))
        assert await items.write([ItemWrite(indexed(revived), tombstone.item.state.versions, NEAR)]) == frozenset()
        assert await found(items, "b") == ["a"]

    async def test_an_offer_waits_for_its_item(self, items: ItemCollection) -> None:
        offer = insert_offer("a", 3)
        await items.write([offer, insert("b", NEAR)])
        assert await found(items, "b") == []
        assert await items.count() == IndexCounts(points=1, tombstones=1)
        whole = merge(offer.item.state, upserted("a", Content(title="a"), 1))
        assert await items.write([ItemWrite(indexed(whole), offer.item.state.versions, NEAR)]) == frozenset()
        assert await found(items, "b") == ["a"]
        assert await items.count() == IndexCounts(points=2, tombstones=0)


class TestSearching:
    async def test_nearer_items_come_first_with_their_titles(self, items: ItemCollection) -> None:
        await items.write([insert("far", FAR), insert("near", NEAR), insert("middle", vectors(1.0, 1.0))])
        (hits,) = await items.search([Search(VectorName.CONTENT, dense(1.0), 10)])
        assert [hit.id for hit in hits] == ["near", "middle", "far"]
        assert [hit.facts.title for hit in hits] == ["title of near", "title of middle", "title of far"]
        assert hits[0].score == pytest.approx(NEAR.content[0], abs=1e-3)

    async def test_a_hit_carries_the_facts_of_its_item(self, items: ItemCollection) -> None:
        write = insert("mug", NEAR, content=MUG, offer=MUG_OFFER)
        await items.write([replace(write, item=replace(write.item, first_seen=7, sketch=bytes(range(32))))])
        (hits,) = await items.search([Search(VectorName.CONTENT, dense(1.0), 10)])
        assert [(hit.id, hit.facts) for hit in hits] == [("mug", MUG_FACTS)]

    async def test_hits_carry_the_facts_of_now_after_every_kind_of_change(self, items: ItemCollection) -> None:
        def retitled(title: str, version: int) -> IndexedItem:
            return indexed(upserted("b", Content(title=title), version))

        async def titles() -> list[str]:
            (hits,) = await items.search([Search(VectorName.CONTENT, "a", 10)])
            return [hit.facts.title for hit in hits]

        await items.write([insert("a", NEAR), insert("b", NEAR, 1, Content(title="first"))])
        assert await titles() == ["first"]
        await items.write([ItemWrite(retitled("second", 2), Versions(content=1), Stored.VECTORS)])
        assert await titles() == ["second"]
        await items.write([ItemWrite(retitled("third", 3), Versions(content=2), FAR)])
        assert await titles() == ["third"]
        await items.write([delete(retitled("third", 3).state, 4)])
        assert await titles() == []

    async def test_the_anchor_is_never_its_own_neighbour(self, items: ItemCollection) -> None:
        await items.write([insert("a", NEAR), insert("twin", NEAR), insert("far", FAR)])
        assert await found(items, "a") == ["twin", "far"]

    async def test_a_hidden_item_is_not_found_and_still_has_neighbours(self, items: ItemCollection) -> None:
        hidden = Content(title="hidden", status=Status.HIDDEN)
        await items.write([insert("a", NEAR), insert("hidden", NEAR, content=hidden)])
        assert await found(items, "a") == []
        assert await found(items, "hidden") == ["a"]

    async def test_a_probe_is_found_as_a_hidden_item_is_whatever_its_status(self, items: ItemCollection) -> None:
        await items.write([insert("a", NEAR), insert("nearkin-probe-00", NEAR)])
        assert await found(items, "nearkin-probe-00") == ["a"]
        (hits,) = await items.search([Search(VectorName.CONTENT, NEAR.content, 5, hidden=True)])
        assert set(hits.ids) == {"a", "nearkin-probe-00"}

    async def test_a_hidden_item_is_found_where_that_is_asked_for_and_a_deleted_one_never(
        self, items: ItemCollection
    ) -> None:
        hidden = insert("hidden", NEAR, content=Content(title="hidden", status=Status.HIDDEN))
        gone = insert("gone", NEAR)
        await items.write([insert("a", NEAR), hidden, gone])
        await items.write([delete(gone.item.state, 2)])
        among = ("a", "hidden", "gone", "unknown")
        (hits,) = await items.search([Search(VectorName.CONTENT, dense(1.0), 4, exact=True, among=among, hidden=True)])
        assert {hit.id: hit.facts.title for hit in hits} == {"a": "title of a", "hidden": "hidden"}

    async def test_at_most_the_limit_is_found(self, items: ItemCollection) -> None:
        await items.write([insert(f"i{number}", random_vectors(number)) for number in range(30)])
        assert len(await found(items, "i0", limit=1)) == 1
        assert len(await found(items, "i0", limit=7)) == 7
        assert len(await found(items, "i0", limit=100)) == 29

    async def test_exact_and_approximate_search_agree_on_few_items(self, items: ItemCollection) -> None:
        await items.write([insert(f"i{number}", random_vectors(number)) for number in range(200)])
        query = random_vectors(1000).content
        approximate, exact = await items.search(
            [Search(VectorName.CONTENT, query, 10), Search(VectorName.CONTENT, query, 10, exact=True)]
        )
        order = sorted(range(200), key=lambda number: -float(query @ random_vectors(number).content))[:10]
        assert [hit.id for hit in exact] == [f"i{number}" for number in order]
        assert [hit.id for hit in approximate] == [hit.id for hit in exact]

    async def test_rare_terms_count_more_than_common_ones(self, items: ItemCollection) -> None:
        common = [insert(f"common{number}", vectors(1.0, t1=1.0)) for number in range(20)]
        await items.write([*common, insert("rare", vectors(1.0, t2=1.0)), insert("neither", vectors(1.0, t3=1.0))])
        (hits,) = await items.search([Search(VectorName.LEXICAL, lexical(t1=1.0, t2=1.0), 50)])
        assert hits[0].id == "rare"
        assert len(hits) == 21
        assert hits[0].score > 5 * hits[1].score

    async def test_more_of_a_term_counts_more(self, items: ItemCollection) -> None:
        await items.write([insert("less", vectors(1.0, t1=1.0)), insert("more", vectors(1.0, t1=2.0))])
        (hits,) = await items.search([Search(VectorName.LEXICAL, lexical(t1=1.0), 10)])
        assert [hit.id for hit in hits] == ["more", "less"]

    async def test_many_searches_are_answered_in_their_order(self, items: ItemCollection) -> None:
        await items.write([insert("a", NEAR), insert("b", FAR), insert("bare", vectors(0.5, 0.5))])
        answers = await items.search(
            [
                Search(VectorName.CONTENT, "a", 1, ItemFilter(exclude_ids=("bare",))),
                Search(VectorName.CONTENT, "unknown", 5),
                Search(VectorName.LEXICAL, "a", 5),
                Search(VectorName.LEXICAL, "bare", 5),
                Search(VectorName.LEXICAL, SparseVector(np.array([], np.uint32), np.array([], np.float32)), 5),
                Search(VectorName.CONTENT, dense(0.0, 1.0), 1),
            ]
        )
        assert [[hit.id for hit in hits] for hits in answers] == [["b"], [], ["b"], [], [], ["b"]]

    async def test_a_search_by_an_id_that_is_not_held_has_no_hits(self, items: ItemCollection) -> None:
        await items.write([insert("a", NEAR)])
        assert await found(items, "unknown") == []


class TestSearchingAmongItems:
    async def test_only_the_items_named_are_scored_and_each_of_them(self, items: ItemCollection) -> None:
        await items.write([insert(f"i{number}", random_vectors(number)) for number in range(300)])
        query = random_vectors(1000).content
        named = [f"i{number}" for number in range(0, 300, 3)]
        search = Search(VectorName.CONTENT, query, 200)
        some, every = await items.search([replace(search, among=(*named, "unknown")), replace(search, limit=300)])
        assert {hit.id for hit in some} == set(named)
        scores = {hit.id: hit.score for hit in every}
        assert {hit.id: hit.score for hit in some} == pytest.approx(
            {item_id: scores[item_id] for item_id in named}, abs=1e-6
        )
        assert [hit.score for hit in some] == sorted((hit.score for hit in some), reverse=True)

    async def test_the_best_of_them_are_found_within_the_limit(self, items: ItemCollection) -> None:
        await items.write([insert(f"i{number}", random_vectors(number)) for number in range(50)])
        among = tuple(f"i{number}" for number in range(1, 30))
        whole, head = await items.search(
            [Search(VectorName.CONTENT, "i0", limit, among=among) for limit in (len(among), 5)]
        )
        assert [hit.id for hit in head] == [hit.id for hit in whole][:5]

    async def test_what_may_not_be_found_is_not_found_when_it_is_named(self, items: ItemCollection) -> None:
        gone = insert("gone", NEAR)
        await items.write(
            [
                insert("anchor", NEAR),
                insert("mug", NEAR, content=MUG, offer=MUG_OFFER),
                insert("plate", NEAR, content=PLATE, offer=PLATE_OFFER),
                insert("hidden", NEAR, content=replace(MUG, status=Status.HIDDEN), offer=MUG_OFFER),
                insert_offer("pending"),
                gone,
            ]
        )
        await items.write([delete(gone.item.state, 2)])
        among = ("anchor", "mug", "plate", "hidden", "pending", "gone", "unknown")
        narrow = ItemFilter(tags_any=("red",), market="FR", exclude_ids=("plate",))
        for using in VectorName:
            free, asked = await items.search(
                [Search(using, "anchor", 10, filter_, among=among) for filter_ in (ItemFilter(), narrow)]
            )
            assert {hit.id for hit in free} == {"mug", "plate"}
            assert [hit.id for hit in asked] == ["mug"]

    async def test_by_words_only_those_that_share_one_are_found_with_the_score_that_they_have_among_all(
        self, items: ItemCollection
    ) -> None:
        await items.write(
            [insert("rare", vectors(1.0, t2=1.0)), insert("other", vectors(1.0, t3=1.0))]
            + [insert(f"common{number}", vectors(1.0, t1=1.0)) for number in range(20)]
        )
        search = Search(VectorName.LEXICAL, lexical(t1=1.0, t2=1.0), 50)
        some, every = await items.search([replace(search, among=("rare", "other", "common3")), search])
        assert [hit.id for hit in some] == ["rare", "common3"]
        scores = {hit.id: hit.score for hit in every}
        assert [hit.score for hit in some] == pytest.approx([scores["rare"], scores["common3"]])

    async def test_among_none_nothing_is_found_and_other_searches_go_on(self, items: ItemCollection) -> None:
        await items.write([insert("a", NEAR), insert("b", NEAR)])
        nothing, everything = await items.search(
            [Search(VectorName.CONTENT, "a", 5, among=()), Search(VectorName.CONTENT, "a", 5)]
        )
        assert ([hit.id for hit in nothing], [hit.id for hit in everything]) == ([], ["b"])


MUG = Content(
    title="mug",
    categories=(("home", "kitchen", "mugs"), ("gifts",)),
    tags=("red", "small"),
    attributes={"size": "L", "finish": "matt=1/2"},
)
PLATE = Content(title="plate", categories=(("home", "kitchen"), ("a/b",)), tags=("red",), attributes={"size": "S"})
MUG_OFFER = Offer(Price(3.5, "GBP"), Availability.IN_STOCK, ("GB", "FR"))
PLATE_OFFER = Offer(Price(10.0, "GBP"), Availability.OUT_OF_STOCK)
MUG_FACTS = ItemFacts(
    "mug",
    "mug",
    ("home/kitchen/mugs", "gifts"),
    3.5,
    "GBP",
    markets=("GB", "FR"),
    first_seen=7,
    sketch=bytes(range(32)),
)


class TestFilters:
    @pytest.mark.parametrize(
        ("asked", "expected"),
        [
            (ItemFilter(), {"mug", "plate", "plain"}),
            (ItemFilter(categories_any=(("gifts",), ("a/b",))), {"mug", "plate"}),
            (ItemFilter(categories_any=(("home",),)), set()),
            (ItemFilter(categories_any=(("a", "b"),)), set()),
            (ItemFilter(categories_all=(("gifts",), ("home", "kitchen", "mugs"))), {"mug"}),
            (ItemFilter(categories_all=(("gifts",), ("home", "kitchen"))), set()),
            (ItemFilter(category_prefix=("home",)), {"mug", "plate"}),
            (ItemFilter(category_prefix=("home", "kitchen")), {"mug", "plate"}),
            (ItemFilter(category_prefix=("home", "kitchen", "mugs")), {"mug"}),
            (ItemFilter(category_prefix=("kitchen",)), set()),
            (ItemFilter(tags_any=("small", "blue")), {"mug"}),
            (ItemFilter(tags_all=("red",)), {"mug", "plate"}),
            (ItemFilter(tags_all=("red", "small")), {"mug"}),
            (ItemFilter(attributes=(("size", "S"),)), {"plate"}),
            (ItemFilter(attributes=(("size", "L"), ("finish", "matt=1/2"))), {"mug"}),
            (ItemFilter(attributes=(("size", "L"), ("finish", "gloss"))), set()),
            (ItemFilter(price=PriceRange("GBP")), {"mug", "plate"}),
            (ItemFilter(price=PriceRange("GBP", low=3.5)), {"mug", "plate"}),
            (ItemFilter(price=PriceRange("GBP", low=3.6)), {"plate"}),
            (ItemFilter(price=PriceRange("GBP", high=9.99)), {"mug"}),
            (ItemFilter(price=PriceRange("GBP", 3, 4)), {"mug"}),
            (ItemFilter(price=PriceRange("EUR", 3, 4)), set()),
            (ItemFilter(availability=(Availability.OUT_OF_STOCK,)), {"plate"}),
            (ItemFilter(availability=(Availability.IN_STOCK, Availability.OUT_OF_STOCK)), {"mug", "plate", "plain"}),
            (ItemFilter(market="FR"), {"mug", "plate", "plain"}),
            (ItemFilter(market="US"), {"plate", "plain"}),
            (ItemFilter(exclude_ids=("mug", "unknown")), {"plate", "plain"}),
            (ItemFilter(tags_all=("red",), market="US", exclude_ids=("plain",)), {"plate"}),
        ],
    )
    async def test_every_condition_holds_inside_the_search(
        self, items: ItemCollection, asked: ItemFilter, expected: set[str]
    ) -> None:
        await items.write(
            [
                insert("anchor", NEAR),
                insert("mug", NEAR, content=MUG, offer=MUG_OFFER),
                insert("plate", NEAR, content=PLATE, offer=PLATE_OFFER),
                insert("plain", NEAR),
            ]
        )
        for using in VectorName:
            (hits,) = await items.search([Search(using, "anchor", 10, asked)])
            assert {hit.id for hit in hits} == expected
