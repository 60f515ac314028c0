"""Qdrant's gRPC services over the embedded collections; each method decodes, calls one function, and encodes.

What is not here answers UNIMPLEMENTED, as the generated base classes do.
"""

import functools
import importlib.metadata
import logging
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from nearkin.embedded.edge_messages import Refused, bad_request
from nearkin.embedded.index_collections import Collections, optimise
from nearkin.ops.logs import describe
from nearkin.stores.qdrant_stubs import wire

log = logging.getLogger(__name__)

Handler = Callable[[Any, Any], Any]


def answers(handler: Handler) -> Callable[[Any, Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]:
    """Serve a plain function: its refusal becomes a status, its failure one line in the log and an INTERNAL status.

    The words of a failure are kept back: an engine may quote a payload.
    """

    @functools.wraps(handler)
    async def serve(self: Any, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        started = time.perf_counter()
        try:
            response = handler(self, request)
        except Refused as refused:
            await context.abort(refused.code, refused.message)
        except Exception as error:
            log.error("%s failed: %s", handler.__name__, describe(error))
            await context.abort(grpc.StatusCode.INTERNAL, f"Service internal error: {describe(error)}")
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
        return self._collections.get(request.collection_name).get(request)

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
        (hits,) = self._collections.get(request.collection_name).query([request]).result
        return wire.QueryResponse(result=hits.result)

    @answers
    def QueryBatch(self, request: wire.QueryBatchPoints) -> wire.QueryBatchResponse:  # noqa: N802, D102
        return self._collections.get(request.collection_name).query(request.query_points)

    def _result(self) -> wire.UpdateResult:
        self._operations += 1
        return wire.UpdateResult(operation_id=self._operations, status=wire.UpdateStatus.Completed)

    def _done(self) -> wire.PointsOperationResponse:
        return wire.PointsOperationResponse(result=self._result())
