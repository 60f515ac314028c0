"""What the owner of the embedded index adds to Qdrant Edge: durability, one owner, and refusals that say what to do."""

import asyncio
import socket
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient, models

from nearkin.core.errors import Misconfigured, Unavailable
from nearkin.core.item import Content, upserted
from nearkin.core.ports import IndexCounts, ItemCollection, ItemIndex, ItemWrite, Search
from nearkin.core.vectors import VectorName
from stores.made_items import DIMENSIONS, indexed, insert, random_vectors
from stores.owner_process import OwnerProcess

ALIAS = "nearkin-items"


async def write_until_it_dies(items: ItemCollection, acknowledged: dict[str, int], first: int) -> None:
    """Insert items and change some of them, noting what was acknowledged."""
    number = first
    while True:
        batch = [insert(f"i{number + offset}", random_vectors(number + offset)) for offset in range(10)]
        try:
            assert await items.write(batch) == frozenset()
            acknowledged.update({write.item.state.id: 1 for write in batch})
            held = batch[0].item.state
            changed = upserted(held.id, Content(title="changed"), 2)
            change = ItemWrite(indexed(changed), held.versions, random_vectors(number))
            assert await items.write([change]) == frozenset()
            acknowledged[held.id] = 2
        except Unavailable:
            return
        number += 10


@pytest.mark.slow
async def test_no_acknowledged_write_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    acknowledged: dict[str, int] = {}
    with OwnerProcess(tmp_path / "data") as owner:
        for round_ in range(3):
            index = owner.connect(ALIAS)
            items = await index.prepare("a", DIMENSIONS)
            writers = [
                asyncio.create_task(write_until_it_dies(items, acknowledged, (round_ * 3 + writer) * 1_000_000))
                for writer in range(3)
            ]
            before = len(acknowledged)
            while len(acknowledged) < before + 600:  # noqa: ASYNC110  # the writers are what it waits for
                await asyncio.sleep(0.01)
            owner.kill()
            await asyncio.gather(*writers)
            await index.close()
            owner.start()
        index = owner.connect(ALIAS)
        items = await index.serving()
        held = await items.read(list(acknowledged))
        assert {item_id for item_id in acknowledged if item_id not in held} == set()
        assert all(held[item_id].state.content_version >= version for item_id, version in acknowledged.items())
        # Each acknowledged item stands on one point; at most the three batches in flight at each kill came besides.
        counted = await items.count()
        assert counted.tombstones == 0
        assert len(acknowledged) <= counted.points <= len(acknowledged) + 3 * 3 * 10
        query = random_vectors(0).content
        (hits,) = await items.search([Search(VectorName.CONTENT, query, counted.points, exact=True)])
        assert len({hit.id for hit in hits}) == len(hits) == counted.points
        await index.close()


async def reconnected(index: ItemIndex) -> ItemCollection:
    """What serves, once gRPC has tried again: after a refused connection it pauses for up to two seconds."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await index.serving()
            except Unavailable:
                await asyncio.sleep(0.05)


async def test_a_restart_finds_the_items_and_the_alias(tmp_path: Path) -> None:
    with OwnerProcess(tmp_path / "data") as owner:
        index = owner.connect(ALIAS)
        items = await index.prepare("a", DIMENSIONS)
        await items.write([insert("x", random_vectors(1)), insert("y", random_vectors(2))])
        assert owner.stop() == 0
        with pytest.raises(Unavailable, match="index"):
            await items.read(["x"])
        owner.start()
        serving = await reconnected(index)
        assert serving.name == f"{ALIAS}-a"
        assert set(await serving.read(["x", "y"])) == {"x", "y"}
        assert await serving.count() == IndexCounts(points=2, tombstones=0)
        assert await index.prepare("a", DIMENSIONS)
        await index.close()


def test_a_second_process_on_the_same_folder_is_refused(owner: OwnerProcess) -> None:
    refused = owner.run_to_its_end(port=0)
    assert refused.returncode == 2
    assert f"another process owns the data folder (process {owner.process.pid})" in refused.stderr
    assert "stop that process" in refused.stderr


def test_a_folder_of_another_version_is_refused_untouched(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "FORMAT").write_text("nearkin-index 99\n")
    refused = OwnerProcess(data).run_to_its_end()
    assert refused.returncode == 2
    assert "'nearkin-index 99'" in refused.stderr
    assert "publish the items again" in refused.stderr
    assert [entry.name for entry in data.iterdir()] == ["FORMAT"]


def test_a_folder_of_something_else_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    refused = OwnerProcess(tmp_path).run_to_its_end()
    assert refused.returncode == 2
    assert "thesis.txt" in refused.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_taken_port_is_named_and_the_folder_is_left_alone(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = OwnerProcess(tmp_path / "data").run_to_its_end(port)
    assert refused.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in refused.stderr
    assert not (tmp_path / "data").exists()


async def test_a_full_disk_refuses_writes_and_serves_reads(tmp_path: Path) -> None:
    with OwnerProcess(tmp_path / "data") as owner:
        index = owner.connect(ALIAS)
        items = await index.prepare("a", DIMENSIONS)
        await items.write([insert("x", random_vectors(1))])
        await index.close()
        owner.stop()
        owner.options = ("--min-free-mib", str(2**30))
        owner.start()
        index = owner.connect(ALIAS)
        items = await index.serving()
        with pytest.raises(Unavailable, match="no space left on its disk; free some space"):
            await items.write([insert("y", random_vectors(2))])
        assert set(await items.read(["x", "y"])) == {"x"}
        await index.close()


async def test_a_filter_on_a_field_without_an_index_is_refused_with_the_field(tmp_path: Path) -> None:
    with OwnerProcess(tmp_path / "data") as owner:
        client = owner.client()
        await client.create_collection(
            f"{ALIAS}-a",
            vectors_config={"content": models.VectorParams(size=DIMENSIONS, distance=models.Distance.COSINE)},
        )
        unindexed = models.Filter(must=[models.FieldCondition(key="colour", match=models.MatchValue(value="red"))])
        with pytest.raises(Exception, match='Index required but not found for "colour"'):
            await client.scroll(f"{ALIAS}-a", scroll_filter=unindexed)
        with pytest.raises(Exception, match='Index required but not found for "colour"'):
            await client.count(f"{ALIAS}-a", count_filter=unindexed)
        await client.close()


async def test_a_look_up_on_a_collection_without_the_indexes_names_the_field_and_the_remedy(tmp_path: Path) -> None:
    with OwnerProcess(tmp_path / "data") as owner:
        client, index = owner.client(), owner.connect(ALIAS)
        await client.create_collection(
            f"{ALIAS}-a",
            vectors_config={"content": models.VectorParams(size=DIMENSIONS, distance=models.Distance.COSINE)},
        )
        alias = models.CreateAlias(collection_name=f"{ALIAS}-a", alias_name=ALIAS)
        await client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
        items = await index.serving()
        with pytest.raises(Misconfigured, match=r"filter\.hidden: .* leave the condition out"):
            await items.search([Search(VectorName.CONTENT, random_vectors(1).content, 5)])
        await client.upsert(f"{ALIAS}-a", [models.PointStruct(id=1, vector={"content": [1.0] * DIMENSIONS})])
        with pytest.raises(Misconfigured, match=r"no sparse vector named 'lexical' .* publish the items again"):
            await index.prepare("a", DIMENSIONS)
        await client.close()
        await index.close()


async def test_a_collection_that_lacks_a_payload_index_is_refused_once_it_holds_points(tmp_path: Path) -> None:
    with OwnerProcess(tmp_path / "data") as owner:
        client, index = owner.client(), owner.connect(ALIAS)
        await client.create_collection(
            f"{ALIAS}-a",
            vectors_config={"content": models.VectorParams(size=DIMENSIONS, distance=models.Distance.COSINE)},
            sparse_vectors_config={"lexical": models.SparseVectorParams(modifier=models.Modifier.IDF)},
        )
        await client.upsert(f"{ALIAS}-a", [models.PointStruct(id=1, vector={"content": [1.0] * DIMENSIONS})])
        with pytest.raises(Misconfigured, match="holds points and has no payload index on 'content_version'"):
            await index.prepare("a", DIMENSIONS)
        await client.delete(f"{ALIAS}-a", [1])
        await index.prepare("a", DIMENSIONS)
        await client.close()
        await index.close()


async def test_the_alias_is_switched_at_once_and_seen_within_a_second(tmp_path: Path) -> None:
    with OwnerProcess(tmp_path / "data") as owner:
        client, index = owner.client(), owner.connect(ALIAS)
        first = await index.prepare("a", DIMENSIONS)
        await index.prepare("b", DIMENSIONS + 1)
        assert (await index.serving()).name == first.name
        await client.update_collection_aliases(
            [
                models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=ALIAS)),
                models.CreateAliasOperation(
                    create_alias=models.CreateAlias(collection_name=f"{ALIAS}-b", alias_name=ALIAS)
                ),
            ]
        )
        await asyncio.sleep(1.1)
        serving = await index.serving()
        assert (serving.name, serving.bundle) == (f"{ALIAS}-b", "b")
        owner.kill()
        owner.start()
        assert [alias.alias_name for alias in (await client.get_collection_aliases(f"{ALIAS}-b")).aliases] == [ALIAS]
        await client.close()
        await index.close()


@pytest.mark.slow
async def test_a_graph_is_built_on_request_and_finds_what_exact_search_finds(tmp_path: Path) -> None:
    dimensions, points = 256, 21_000  # just above the threshold of 20 MB of vectors
    with OwnerProcess(tmp_path / "data") as owner:
        client, index = owner.client(), owner.connect(ALIAS)
        items = await index.prepare("a", dimensions)
        await write_clusters(items, dimensions, points)
        await client.update_collection(items.name, optimizers_config=models.OptimizersConfigDiff())
        searches = [Search(VectorName.CONTENT, f"i{number}", 10) for number in range(50)]
        exact = [Search(VectorName.CONTENT, f"i{number}", 10, exact=True) for number in range(50)]
        found, right = await items.search(searches), await items.search(exact)
        shared = sum(
            len({hit.id for hit in some} & {hit.id for hit in all_}) for some, all_ in zip(found, right, strict=True)
        )
        assert shared >= 0.9 * 500
        assert "optimised in" in owner.log.read_text()
        await client.close()
        await index.close()


async def write_clusters(items: ItemCollection, dimensions: int, points: int) -> None:
    import numpy as np

    from nearkin.core.vectors import Vectors
    from stores.made_items import lexical

    random = np.random.default_rng(7)
    centres = random.standard_normal((200, dimensions)).astype(np.float32)
    for start in range(0, points, 1000):
        made = centres[random.integers(0, 200, 1000)] + random.standard_normal((1000, dimensions)).astype(np.float32)
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        await items.write(
            [insert(f"i{start + row}", Vectors(vector, lexical(t1=1.0))) for row, vector in enumerate(made)]
        )


async def test_any_qdrant_client_can_look_inside(tmp_path: Path) -> None:
    with OwnerProcess(tmp_path / "data") as owner:
        client: AsyncQdrantClient = owner.client()
        index = owner.connect(ALIAS)
        items = await index.prepare("a", DIMENSIONS)
        await items.write([insert("x", random_vectors(1)), insert("y", random_vectors(2))])
        assert [collection.name for collection in (await client.get_collections()).collections] == [items.name]
        records, following = await client.scroll(ALIAS, limit=1, with_vectors=True)
        assert len(records) == 1
        assert following is not None
        answer = await client.query_points(ALIAS, query=records[0].id, using="content", limit=5)
        assert len(answer.points) == 1
        assert (await client.count(ALIAS)).count == 2
        info = await client.get_collection(ALIAS)
        assert info.points_count == 2
        await client.close()
        await index.close()
