"""Every implementation of the index, each test with an alias of its own."""

import os
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
from qdrant_client import grpc as wire

from certificates import Authority
from nearkin.core.ports import ItemIndex
from nearkin.ops.settings import Settings
from nearkin.stores.memory import MemoryIndex
from nearkin.stores.qdrant import QdrantIndex, connect
from stores.local_mode import LocalMode
from stores.owner_process import OwnerProcess

SERVER_VARIABLE = "NEARKIN_TEST_QDRANT_URL"


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnerProcess]:
    with OwnerProcess(tmp_path_factory.mktemp("owner") / "data") as process:
        yield process


@pytest.fixture(scope="module")
def protected_owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnerProcess]:
    folder = tmp_path_factory.mktemp("protected-owner")
    with OwnerProcess(folder / "data", Authority(folder)) as process:
        yield process


@pytest.fixture
def alias() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


#: A real server takes part where one is named; test_a_real_server says so where none is.
INDEXES = [
    "owner",
    pytest.param("protected_owner", marks=pytest.mark.slow),
    "local",
    "memory",
    *(["server"] if os.environ.get(SERVER_VARIABLE) else []),
]


@pytest.fixture(params=INDEXES)
async def index(request: pytest.FixtureRequest, alias: str) -> AsyncIterator[ItemIndex]:
    """An empty index."""
    if request.param == "memory":
        yield MemoryIndex(alias)
        return
    if request.param == "local":
        yield QdrantIndex(LocalMode().calls(), alias)
        return
    if request.param.endswith("owner"):
        made = request.getfixturevalue(request.param).connect(alias)
    else:
        made = connect(Settings(qdrant_url=os.environ[SERVER_VARIABLE], index_alias=alias))
    yield made
    await delete_collections(made, alias)
    await made.close()


async def delete_collections(index: QdrantIndex, prefix: str) -> None:
    calls = index._calls
    held = await calls(calls.collections.List, wire.ListCollectionsRequest())
    for collection in held.collections:
        if collection.name.startswith(prefix):
            await calls(calls.collections.Delete, wire.DeleteCollection(collection_name=collection.name))
