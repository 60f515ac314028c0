"""What the adapter makes of an address, and of an engine that fails: its status, and never its words."""

import uuid
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearkin.contracts.stored import to_payload
from nearkin.core.candidates import ItemFacts
from nearkin.core.errors import Misconfigured, NearkinError, Unavailable
from nearkin.core.item import Offer
from nearkin.core.ports import IndexedItem, Search
from nearkin.core.vectors import VectorName
from nearkin.embedded.programs import free_port
from nearkin.ops.settings import Settings
from nearkin.stores import qdrant_messages as messages
from nearkin.stores.qdrant import Calls, QdrantCollection, QdrantIndex, connect, target_of, translated
from stores.local_mode import LocalMode, refusal
from stores.made_items import DIMENSIONS, delete, dense, insert, reoffer, vectors
from stores.owner_process import OwnerProcess

#: What an engine may quote: a title, a filter's value.
SECRET = "a title that is nobody's business"

TOLD = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://127.0.0.1:6334", "127.0.0.1:6334"),
        ("https://qdrant.internal/", "qdrant.internal:6334"),
        ("http://[::1]:7000", "[::1]:7000"),
        ("http://[::1]", "[::1]:6334"),
    ],
)
def test_the_index_is_reached_at_the_host_and_port_of_its_setting(url: str, target: str) -> None:
    assert target_of(Settings(qdrant_url=url).qdrant_url) == target


async def test_an_index_that_nobody_listens_for_refuses_connections() -> None:
    index = connect(Settings(qdrant_url=f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(Unavailable, match=r"UNAVAILABLE: connection refused$"):
        await index.serving()
    await index.close()


@pytest.mark.parametrize("code", sorted(set(grpc.StatusCode) - TOLD, key=lambda code: code.name))
def test_an_engine_is_never_quoted_and_its_status_is_named(code: grpc.StatusCode) -> None:
    error = translated(refusal(code, f"payload is {SECRET}"))
    assert SECRET not in f"{error} {vars(error)}"
    assert code.name in str(error)


@pytest.mark.parametrize("code", sorted(TOLD, key=lambda code: code.name))
def test_a_refused_key_names_its_setting(code: grpc.StatusCode) -> None:
    error = translated(refusal(code, SECRET))
    assert SECRET not in f"{error} {vars(error)}"
    assert "NEARKIN_QDRANT_API_KEY" in str(error)


@pytest.mark.parametrize(
    ("code", "details", "told"),
    [
        (grpc.StatusCode.UNAVAILABLE, f"{SECRET}: Connection refused", "connection refused"),
        (grpc.StatusCode.UNAVAILABLE, f"errors resolving {SECRET}", "its host has no address"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", "no answer in time"),
        (grpc.StatusCode.NOT_FOUND, f"Not found: Collection `{SECRET}` doesn't exist!", "a collection is not there"),
        (grpc.StatusCode.INTERNAL, f"No space left on device: {SECRET}", "free some space"),
    ],
)
def test_what_is_known_of_a_failure_is_told_in_words_of_our_own(code: grpc.StatusCode, details: str, told: str) -> None:
    error = translated(refusal(code, details))
    assert isinstance(error, Unavailable)
    assert told in str(error)
    assert SECRET not in f"{error} {vars(error)}"


@pytest.mark.parametrize(("key", "field"), [("currency", "filter.currency"), (SECRET, "filter")])
def test_a_condition_without_its_payload_index_is_named_where_it_is_one_of_ours(key: str, field: str) -> None:
    details = f'Bad request: Index required but not found for "{key}" of one of the following types: [keyword].'
    error = translated(refusal(grpc.StatusCode.INVALID_ARGUMENT, details))
    assert isinstance(error, Misconfigured)
    assert (error.field, error.reason) == (field, "unindexed_filter")
    assert SECRET not in f"{error} {vars(error)}"


@given(st.text(max_size=40))
def test_an_items_point_has_the_uuid_of_its_name(item_id: str) -> None:
    assert messages.point_id(item_id).uuid == str(uuid.uuid5(messages.NAMESPACE, item_id))


async def test_items_that_were_written_before_there_were_facts_are_served(
    owner: OwnerProcess, alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def to_older_payload(item: IndexedItem) -> dict[str, Any]:
        return {key: value for key, value in to_payload(item).items() if key != "facts"}

    gone = insert("gone", vectors(1.0, t1=1.0))
    old = [insert(f"old{number}", vectors(1.0, 0.1 * number, t1=1.0)) for number in range(3)]
    for index in (QdrantIndex(LocalMode().calls(), alias), owner.connect(alias)):
        items = await index.prepare("a", DIMENSIONS)
        with monkeypatch.context() as older:
            older.setattr(messages, "to_payload", to_older_payload)
            await items.write([*old, gone])
        await items.write([insert("new", vectors(1.0, 1.0, t1=1.0)), delete(gone.item.state, 2)])
        expected = {item_id: ItemFacts(item_id, f"title of {item_id}") for item_id in ("old0", "old1", "old2", "new")}
        (hits,) = await items.search([Search(VectorName.CONTENT, dense(1.0), 10)])
        assert {hit.id: hit.facts for hit in hits} == expected
        assert await items.read_facts([*expected, "gone", "unknown"]) == expected
        moved = reoffer(old[0].item.state, Offer(markets=("FR",)), 5)
        assert await items.write([moved]) == frozenset()
        assert (await items.read_facts(["old0"]))["old0"].markets == ("FR",)
        await index.close()


async def test_facts_travel_once_until_their_point_changes(owner: OwnerProcess, alias: str) -> None:
    class Watched:
        """The engine's answers, and how many hits came with facts in each."""

        def __init__(self, points: Any) -> None:
            self._points, self.told = points, list[int]()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._points, name)

        async def QueryBatch(self, request: Any, **options: Any) -> Any:  # noqa: N802  # the method is Qdrant's
            answer = await self._points.QueryBatch(request, **options)
            self.told.append(sum("facts" in point.payload for one in answer.result for point in one.result))
            return answer

    index = owner.connect(alias)
    index._calls.points = watched = Watched(index._calls.points)
    items = await index.prepare("a", DIMENSIONS)
    await items.write([insert(f"i{number}", vectors(1.0, 0.1 * number, t1=1.0)) for number in range(5)])
    searches = [Search(VectorName.CONTENT, "i0", 100), Search(VectorName.LEXICAL, "i0", 100)]
    found = [[hit.id for hit in hits] for hits in await items.search(searches)]
    assert watched.told == [0, 4]
    assert [[hit.id for hit in hits] for hits in await items.search(searches)] == found
    assert watched.told == [0, 4, 0]
    held = (await items.read(["i3"]))["i3"].state
    assert await items.write([reoffer(held, Offer(markets=("FR",)), 5)]) == frozenset()
    for hits in await items.search(searches):
        assert {hit.id: hit.facts.markets for hit in hits} == {"i1": (), "i2": (), "i3": ("FR",), "i4": ()}
    assert watched.told == [0, 4, 0, 0, 1]
    (few,) = await items.search([Search(VectorName.CONTENT, "i0", 4)])
    assert [hit.facts.id for hit in few] == found[0]
    assert watched.told == [0, 4, 0, 0, 1, 4], "so few carry them"
    await index.close()


async def test_a_collection_that_is_missing_is_named() -> None:
    class Missing:
        async def Get(self, _: object, **__: object) -> None:  # noqa: N802  # the method is Qdrant's
            raise refusal(grpc.StatusCode.NOT_FOUND, SECRET)

    collection = QdrantCollection(Calls(Missing(), None, timeout_s=1.0), "nearkin-items-a", "a")
    with pytest.raises(NearkinError, match=r"the collection nearkin-items-a is not there; restart") as failure:
        await collection.read(["x"])
    assert SECRET not in str(failure.value)
