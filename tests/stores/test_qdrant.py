"""What the adapter makes of an address, and of an engine that fails: its status, and never its words."""

import grpc
import pytest

from nearkin.core.errors import Misconfigured, NearkinError, Unavailable
from nearkin.embedded.programs import free_port
from nearkin.ops.settings import Settings
from nearkin.stores.qdrant import Calls, QdrantCollection, connect, target_of, translated
from stores.local_mode import refusal

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


async def test_a_collection_that_is_missing_is_named() -> None:
    class Missing:
        async def Get(self, _: object, **__: object) -> None:  # noqa: N802  # the method is Qdrant's
            raise refusal(grpc.StatusCode.NOT_FOUND, SECRET)

    collection = QdrantCollection(Calls(Missing(), None, timeout_s=1.0), "nearkin-items-a", "a")
    with pytest.raises(NearkinError, match=r"the collection nearkin-items-a is not there; restart") as failure:
        await collection.read(["x"])
    assert SECRET not in str(failure.value)
