"""The one process that holds Qdrant Edge, and answers on loopback as a Qdrant server would.

Edge locks its folder and holds the GIL in every call, so the indexer and the look-up cannot each open it, and threads
would gain nothing. This process serves the part of Qdrant's own gRPC API that Nearkin uses, on one event loop: any
Qdrant client can look inside, and the adapter for a real server serves here too. What Edge lacks is added:
collections with an alias, refusal of a filter on a field without an index, a lock that says who holds it.

Every acknowledged write is in Edge's log, which survives the process. The log is synced every second, so a machine that
dies loses a second at most; all is flushed when the process is stopped. A graph is built only at start, before the
process is ready, and on request (`UpdateCollection` with any optimizer configuration, as on a server), because nothing
else runs meanwhile.

`python -m nearkin.embedded.index_owner --data DIR --listen 127.0.0.1:PORT`
"""

import argparse
import asyncio
import contextlib
import functools
import importlib.metadata
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from qdrant_client import grpc as wire

from nearkin.core.errors import Misconfigured
from nearkin.embedded.data_folder import DataFolder, is_collection_name
from nearkin.embedded.edge_collection import EdgeCollection
from nearkin.embedded.edge_messages import Refused, bad_request
from nearkin.ops.logs import configure
from nearkin.ops.settings import load_settings

log = logging.getLogger("nearkin.embedded.index_owner")

#: Seconds between two times that the log is synced.
SYNC_EVERY_S = 1.0

#: Below so much free disk writes are refused: Edge maps files into memory, and a full disk under a map kills a process.
MIN_FREE_MIB = 128

#: The largest message either way: 4,096 points of 384 dimensions with their payloads are 16 MB.
MAX_MESSAGE_BYTES = 64 * 2**20

#: Exit status for a start that is refused with a remedy.
EXIT_REFUSED = 2


class Collections:
    """Every collection in the folder, and the aliases, by name."""

    def __init__(self, folder: DataFolder, min_free_bytes: int) -> None:
        self._folder, self._min_free_bytes = folder, min_free_bytes
        self._open: dict[str, EdgeCollection] = {}
        self.aliases = folder.read_aliases()
        for path in sorted(folder.collections.iterdir()):
            self._open[path.name] = EdgeCollection(path)
        self._free_checked_at = 0.0
        self._free = 0

    def __iter__(self) -> Iterator[EdgeCollection]:
        return iter(list(self._open.values()))

    def __contains__(self, name: str) -> bool:
        return self.aliases.get(name, name) in self._open

    def get(self, name: str) -> EdgeCollection:
        """The collection of this name or alias."""
        try:
            return self._open[self.aliases.get(name, name)]
        except KeyError:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"Not found: Collection `{name}` doesn't exist!") from None

    def to_write(self, name: str) -> EdgeCollection:
        """The same, where the disk has space for a write."""
        self._require_space()
        return self.get(name)

    def create(self, request: wire.CreateCollection) -> None:
        """Make a collection."""
        name = request.collection_name
        if not is_collection_name(name):
            raise bad_request(f"the collection name {name!r} may hold letters, digits, '_', '-' and '.' only")
        if name in self:
            raise Refused(grpc.StatusCode.ALREADY_EXISTS, f"Wrong input: Collection `{name}` already exists!")
        self._require_space()
        self._open[name] = EdgeCollection.create(self._folder.collections / name, request)
        log.info("collection %s created", name)

    def delete(self, name: str) -> bool:
        """Remove a collection and its aliases; says whether there was one."""
        if name not in self._open:
            return False
        self._write_aliases({alias: target for alias, target in self.aliases.items() if target != name})
        self._open.pop(name).delete()
        log.info("collection %s deleted", name)
        return True

    def change_aliases(self, request: wire.ChangeAliases) -> None:
        """Apply all changes of aliases, or none."""
        aliases = dict(self.aliases)
        for action in request.actions:
            match action.WhichOneof("action"):
                case "create_alias":
                    if action.create_alias.collection_name not in self._open:
                        self.get(action.create_alias.collection_name)
                    if action.create_alias.alias_name in self._open:
                        raise bad_request(f"a collection has the name {action.create_alias.alias_name}")
                    aliases[action.create_alias.alias_name] = action.create_alias.collection_name
                case "delete_alias":
                    aliases.pop(action.delete_alias.alias_name, None)
                case "rename_alias":
                    aliases[action.rename_alias.new_alias_name] = aliases.pop(action.rename_alias.old_alias_name)
        self._write_aliases(aliases)

    def _write_aliases(self, aliases: dict[str, str]) -> None:
        if aliases != self.aliases:
            self._folder.write_aliases(aliases)
            self.aliases = aliases

    def _require_space(self) -> None:
        now = time.monotonic()
        if now - self._free_checked_at > 0.5:
            self._free, self._free_checked_at = self._folder.free_bytes(), now
        if self._free < self._min_free_bytes:
            raise Refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"No space left on device: {self._free >> 20} MiB are free under {self._folder.path}, writes need "
                f"{self._min_free_bytes >> 20}; free some space, writes resume by themselves",
            )


Handler = Callable[[Any, Any], Any]


def answers(handler: Handler) -> Callable[[Any, Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]:
    """Serve a plain function: its refusal becomes a status, its failure one line in the log and an INTERNAL status."""

    @functools.wraps(handler)
    async def serve(self: Any, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        started = time.perf_counter()
        try:
            response = handler(self, request)
        except Refused as refused:
            await context.abort(refused.code, refused.message)
        except Exception as error:
            log.exception("%s failed", handler.__name__)
            await context.abort(grpc.StatusCode.INTERNAL, f"Service internal error: {error}")
        except BaseException as error:
            if type(error).__name__ == "PanicException":
                # Edge's state is unknown now, its log is not: a new process starts from every acknowledged write.
                log.critical("Qdrant Edge failed in %s and this process with it", handler.__name__)
                os._exit(1)
            raise
        if hasattr(response, "time"):
            response.time = time.perf_counter() - started
        return response

    return serve


class QdrantService(wire.QdrantServicer):
    """Says that the process is ready."""

    @answers
    def HealthCheck(self, request: wire.HealthCheckRequest) -> wire.HealthCheckReply:  # noqa: N802, D102
        version = importlib.metadata.version("qdrant-edge-py")
        return wire.HealthCheckReply(title="qdrant edge behind nearkin.embedded.index_owner", version=version)


class CollectionsService(wire.CollectionsServicer):
    """Collections and aliases."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections

    @answers
    def Get(self, request: wire.GetCollectionInfoRequest) -> wire.GetCollectionInfoResponse:  # noqa: N802, D102
        return wire.GetCollectionInfoResponse(result=self._collections.get(request.collection_name).info())

    @answers
    def List(self, request: wire.ListCollectionsRequest) -> wire.ListCollectionsResponse:  # noqa: N802, D102
        names = [wire.CollectionDescription(name=collection.name) for collection in self._collections]
        return wire.ListCollectionsResponse(collections=names)

    @answers
    def CollectionExists(self, request: wire.CollectionExistsRequest) -> wire.CollectionExistsResponse:  # noqa: N802, D102
        exists = request.collection_name in self._collections
        return wire.CollectionExistsResponse(result=wire.CollectionExists(exists=exists))

    @answers
    def Create(self, request: wire.CreateCollection) -> wire.CollectionOperationResponse:  # noqa: N802, D102
        self._collections.create(request)
        return wire.CollectionOperationResponse(result=True)

    @answers
    def Update(self, request: wire.UpdateCollection) -> wire.CollectionOperationResponse:  # noqa: N802, D102
        if request.HasField("optimizers_config"):
            optimise(self._collections.get(request.collection_name))
        return wire.CollectionOperationResponse(result=True)

    @answers
    def Delete(self, request: wire.DeleteCollection) -> wire.CollectionOperationResponse:  # noqa: N802, D102
        return wire.CollectionOperationResponse(result=self._collections.delete(request.collection_name))

    @answers
    def UpdateAliases(self, request: wire.ChangeAliases) -> wire.CollectionOperationResponse:  # noqa: N802, D102
        self._collections.change_aliases(request)
        return wire.CollectionOperationResponse(result=True)

    @answers
    def ListAliases(self, request: wire.ListAliasesRequest) -> wire.ListAliasesResponse:  # noqa: N802, D102
        return self._aliases(self._collections.aliases)

    @answers
    def ListCollectionAliases(self, request: wire.ListCollectionAliasesRequest) -> wire.ListAliasesResponse:  # noqa: N802, D102
        name = request.collection_name
        return self._aliases({alias: to for alias, to in self._collections.aliases.items() if to == name})

    @staticmethod
    def _aliases(aliases: dict[str, str]) -> wire.ListAliasesResponse:
        return wire.ListAliasesResponse(
            aliases=[wire.AliasDescription(alias_name=alias, collection_name=name) for alias, name in aliases.items()]
        )


class PointsService(wire.PointsServicer):
    """Reading, writing and searching points."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections
        self._operations = 0

    @answers
    def Upsert(self, request: wire.UpsertPoints) -> wire.PointsOperationResponse:  # noqa: N802, D102
        self._collections.to_write(request.collection_name).upsert(request)
        return self._done()

    @answers
    def UpdateBatch(self, request: wire.UpdateBatchPoints) -> wire.UpdateBatchResponse:  # noqa: N802, D102
        collection = self._collections.to_write(request.collection_name)
        results = []
        for operation in request.operations:
            kind = operation.WhichOneof("operation")
            match kind:
                case "upsert":
                    collection.upsert(operation.upsert)
                case "overwrite_payload":
                    overwrite = operation.overwrite_payload
                    collection.overwrite_payload(overwrite.payload, overwrite.points_selector)
                case "set_payload":
                    collection.set_payload(operation.set_payload.payload, operation.set_payload.points_selector)
                case "delete_points":
                    collection.delete_points(operation.delete_points.points)
                case _:
                    raise bad_request(f"the embedded index does not serve {kind} in a batch")
            results.append(self._result())
        return wire.UpdateBatchResponse(result=results)

    @answers
    def OverwritePayload(self, request: wire.SetPayloadPoints) -> wire.PointsOperationResponse:  # noqa: N802, D102
        collection = self._collections.to_write(request.collection_name)
        collection.overwrite_payload(request.payload, request.points_selector)
        return self._done()

    @answers
    def SetPayload(self, request: wire.SetPayloadPoints) -> wire.PointsOperationResponse:  # noqa: N802, D102
        collection = self._collections.to_write(request.collection_name)
        collection.set_payload(request.payload, request.points_selector)
        return self._done()

    @answers
    def Delete(self, request: wire.DeletePoints) -> wire.PointsOperationResponse:  # noqa: N802, D102
        self._collections.to_write(request.collection_name).delete_points(request.points)
        return self._done()

    @answers
    def CreateFieldIndex(self, request: wire.CreateFieldIndexCollection) -> wire.PointsOperationResponse:  # noqa: N802, D102
        self._collections.to_write(request.collection_name).create_field_index(request)
        return self._done()

    @answers
    def Get(self, request: wire.GetPoints) -> wire.GetResponse:  # noqa: N802, D102
        return wire.GetResponse(result=self._collections.get(request.collection_name).get(request))

    @answers
    def Scroll(self, request: wire.ScrollPoints) -> wire.ScrollResponse:  # noqa: N802, D102
        points, following = self._collections.get(request.collection_name).scroll(request)
        return wire.ScrollResponse(result=points, next_page_offset=following)

    @answers
    def Count(self, request: wire.CountPoints) -> wire.CountResponse:  # noqa: N802, D102
        count = self._collections.get(request.collection_name).count(request)
        return wire.CountResponse(result=wire.CountResult(count=count))

    @answers
    def Query(self, request: wire.QueryPoints) -> wire.QueryResponse:  # noqa: N802, D102
        (points,) = self._collections.get(request.collection_name).query([request])
        return wire.QueryResponse(result=points)

    @answers
    def QueryBatch(self, request: wire.QueryBatchPoints) -> wire.QueryBatchResponse:  # noqa: N802, D102
        answered = self._collections.get(request.collection_name).query(request.query_points)
        return wire.QueryBatchResponse(result=[wire.BatchResult(result=points) for points in answered])

    def _result(self) -> wire.UpdateResult:
        self._operations += 1
        return wire.UpdateResult(operation_id=self._operations, status=wire.UpdateStatus.Completed)

    def _done(self) -> wire.PointsOperationResponse:
        return wire.PointsOperationResponse(result=self._result())


def optimise(collection: EdgeCollection) -> None:
    """Build a collection's graph where it has points enough, and say so."""
    started = time.monotonic()
    if collection.optimise():
        log.info("collection %s optimised in %.1f s", collection.name, time.monotonic() - started)


async def sync_regularly(collections: Collections) -> None:
    """Make what was written durable every second; a failure is told and tried again.

    The log is synced in a thread, because the kernel needs no GIL; segments are flushed seldom, because Edge does.
    """
    while True:
        await asyncio.sleep(SYNC_EVERY_S)
        for collection in collections:
            try:
                if collection.unsynced:
                    collection.unsynced = False
                    await asyncio.to_thread(sync_files, collection.log_files())
                collection.flush()
            except Exception as error:
                collection.unsynced = True
                log.error("collection %s could not be made durable, trying again: %s", collection.name, error)


def sync_files(paths: Iterable[Path]) -> None:
    """Write what the kernel holds of some files to disk."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            os.fsync(file.fileno())


async def serve(data: Path, listen: str, min_free_mib: int = MIN_FREE_MIB) -> None:
    """Own a data folder and serve it until SIGTERM or SIGINT.

    Raises:
        Misconfigured: the folder or the address cannot be taken; says what to do.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ]
    )
    host = listen.rpartition(":")[0]
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise Misconfigured(
            f"cannot listen on {listen}: the port is taken or the address is not this machine's",
            field="--listen",
            remedy="stop what listens there, or give another port",
            reason="port",
        ) from error
    folder = DataFolder(data)
    folder.open()
    try:
        collections = Collections(folder, min_free_mib * 2**20)
        for collection in collections:
            optimise(collection)
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        wire.add_QdrantServicer_to_server(QdrantService(), server)  # type: ignore[no-untyped-call]
        wire.add_CollectionsServicer_to_server(CollectionsService(collections), server)  # type: ignore[no-untyped-call]
        wire.add_PointsServicer_to_server(PointsService(collections), server)  # type: ignore[no-untyped-call]
        serving = health.aio.HealthServicer()  # type: ignore[attr-defined]
        await serving.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(serving, server)
        await server.start()
        log.info("ready on %s:%d with %s", host, port, ", ".join(c.name for c in collections) or "no collection yet")
        syncing = asyncio.create_task(sync_regularly(collections))
        await stopping.wait()
        log.info("stopping")
        syncing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await syncing
        await server.stop(grace=2.0)
        for collection in collections:
            collection.close()
    finally:
        folder.close()


def main(arguments: list[str] | None = None) -> int:
    """Run the process; returns its exit status."""
    parser = argparse.ArgumentParser("nearkin.embedded.index_owner", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of the index; made where it is missing")
    parser.add_argument("--listen", default="127.0.0.1:6334", help="host:port to serve on; port 0 takes a free one")
    parser.add_argument(
        "--min-free-mib", type=int, default=MIN_FREE_MIB, help="writes are refused while the disk has less space"
    )
    chosen = parser.parse_args(arguments)
    try:
        configure(load_settings(), "index")
        asyncio.run(serve(chosen.data, chosen.listen, chosen.min_free_mib))
    except Misconfigured as refused:
        print(f"{refused}", file=sys.stderr)  # noqa: T201
        return EXIT_REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
