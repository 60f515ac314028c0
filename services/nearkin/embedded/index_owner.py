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
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from nearkin.core.errors import Misconfigured
from nearkin.embedded.index_collections import Collections, optimise, return_freed_memory
from nearkin.embedded.index_folder import IndexFolder
from nearkin.embedded.qdrant_services import CollectionsService, PointsService, QdrantService
from nearkin.embedded.require_key import RequireKey
from nearkin.ops.credential import Credential
from nearkin.ops.grpc_tls import ServerCertificate
from nearkin.ops.listening import require_protected
from nearkin.ops.logs import configure, describe
from nearkin.ops.process import EXIT_MISCONFIGURED, collect_young_garbage_only, stop_on_signals
from nearkin.ops.settings import Settings, load_settings
from nearkin.stores.qdrant_stubs import wire

log = logging.getLogger("nearkin.embedded.index_owner")

#: Seconds between two times that the log is synced.
SYNC_EVERY_S = 1.0

#: Below so much free disk writes are refused: Edge maps files into memory, and a full disk under a map kills a process.
MIN_FREE_MIB = 128

#: The largest message either way: 4,096 points of 384 dimensions with their payloads are 16 MB.
MAX_MESSAGE_BYTES = 64 * 2**20


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
                log.error("collection %s could not be made durable, trying again: %s", collection.name, describe(error))


def sync_files(paths: Iterable[Path]) -> None:
    """Write what the kernel holds of some files to disk."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            os.fsync(file.fileno())


async def serve(data: Path, listen: str, settings: Settings, min_free_mib: int = MIN_FREE_MIB) -> None:
    """Own a data folder and serve it until SIGTERM or SIGINT.

    Raises:
        Misconfigured: the folder or the address cannot be taken, or a file of TLS cannot be used; says what to do.
    """
    require_protected(
        listen,
        "--listen",
        by_tls=settings.index_cert is not None,
        insecure=settings.listen_insecure,
        remedy="set NEARKIN_INDEX_CERT and NEARKIN_INDEX_KEY, ",
    )
    server = grpc.aio.server(
        interceptors=[RequireKey(Credential("qdrant_api_key", settings.qdrant_api_key))],
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ],
    )
    host = listen.rpartition(":")[0]
    try:
        if settings.index_cert is None:
            port = server.add_insecure_port(listen)
        else:
            port = server.add_secure_port(
                listen, ServerCertificate(settings.index_cert, settings.index_key).credentials()
            )
    except RuntimeError as error:
        raise Misconfigured(
            f"cannot listen on {listen}: the port is taken or the address is not this machine's",
            field="--listen",
            remedy="stop what listens there, or give another port",
            reason="port",
        ) from error
    folder = IndexFolder(data)
    folder.open()
    try:
        collections = Collections(folder, min_free_mib * 2**20)
        for collection in collections:
            optimise(collection)
        return_freed_memory()
        stopping = stop_on_signals()
        wire.add_QdrantServicer_to_server(QdrantService(), server)  # type: ignore[no-untyped-call]
        wire.add_CollectionsServicer_to_server(CollectionsService(collections), server)  # type: ignore[no-untyped-call]
        wire.add_PointsServicer_to_server(PointsService(collections), server)  # type: ignore[no-untyped-call]
        serving = health.aio.HealthServicer()  # type: ignore[attr-defined]
        await serving.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(serving, server)
        await server.start()
        log.info("ready on %s:%d with %s", host, port, ", ".join(c.name for c in collections) or "no collection yet")
        collect_young_garbage_only()
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
        settings = load_settings()
        configure(settings, "index")
        asyncio.run(serve(chosen.data, chosen.listen, settings, chosen.min_free_mib))
    except Misconfigured as refused:
        print(f"{refused}", file=sys.stderr)  # noqa: T201
        return EXIT_MISCONFIGURED
    return 0


if __name__ == "__main__":
    sys.exit(main())
