"""qdrant-client's local mode behind Qdrant's gRPC stubs, so that the adapter is tested on it as it is.

Messages become the client's models and back by the client's own conversions. Local mode has no payload indexes: they
are remembered here, so that making and checking them is tested; a filter on an unindexed field is not refused.
"""

import warnings
from typing import Any

import grpc
from grpc.aio import AioRpcError, Metadata
from qdrant_client import AsyncQdrantClient, models
from qdrant_client import grpc as wire
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

from nearkin.stores.qdrant import Calls


def refusal(code: grpc.StatusCode, details: str) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(), details)


class LocalMode:
    """Answers as PointsStub and as CollectionsStub."""

    # ruff: noqa: N802  # the methods are Qdrant's

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.client = AsyncQdrantClient(":memory:")
        self.indexes: dict[str, dict[str, int]] = {}

    def calls(self) -> Calls:
        return Calls(self, self, timeout_s=5.0)

    async def Get(self, request: Any, **_: Any) -> Any:
        """Both services have a Get."""
        if isinstance(request, wire.GetCollectionInfoRequest):
            return await self._info(request.collection_name)
        with_vectors = request.with_vectors.enable
        records = await self.client.retrieve(
            request.collection_name,
            [point.uuid for point in request.ids],
            with_payload=list(request.with_payload.include.fields) or request.with_payload.enable,
            with_vectors=with_vectors,
        )
        for record in records:
            record.payload = record.payload or {}
        return wire.GetResponse(result=[RestToGrpc.convert_retrieved_point(record) for record in records])

    async def _info(self, name: str) -> Any:
        if not await self.client.collection_exists(name):
            raise refusal(grpc.StatusCode.NOT_FOUND, f"Not found: Collection `{name}` doesn't exist!")
        info = RestToGrpc.convert_collection_info(await self.client.get_collection(name))
        for field, kind in self.indexes.get(name, {}).items():
            info.payload_schema[field].data_type = kind + 1  # the two enumerations differ by the unknown type
        return wire.GetCollectionInfoResponse(result=info)

    async def Create(self, request: Any, **_: Any) -> Any:
        await self.client.create_collection(
            request.collection_name,
            vectors_config=GrpcToRest.convert_vectors_config(request.vectors_config),
            sparse_vectors_config={
                name: GrpcToRest.convert_sparse_vector_params(params)
                for name, params in request.sparse_vectors_config.map.items()
            },
        )
        return wire.CollectionOperationResponse(result=True)

    async def CreateFieldIndex(self, request: Any, **_: Any) -> Any:
        self.indexes.setdefault(request.collection_name, {})[request.field_name] = request.field_type
        return wire.PointsOperationResponse()

    async def ListAliases(self, request: Any, **_: Any) -> Any:
        aliases = (await self.client.get_aliases()).aliases
        return wire.ListAliasesResponse(aliases=[RestToGrpc.convert_alias_description(alias) for alias in aliases])

    async def UpdateAliases(self, request: Any, **_: Any) -> Any:
        await self.client.update_collection_aliases(
            [GrpcToRest.convert_alias_operations(action) for action in request.actions]
        )
        return wire.CollectionOperationResponse(result=True)

    async def UpdateBatch(self, request: Any, **_: Any) -> Any:
        await self.client.batch_update_points(
            request.collection_name,
            [GrpcToRest.convert_points_update_operation(operation) for operation in request.operations],
        )
        return wire.UpdateBatchResponse()

    async def QueryBatch(self, request: Any, **_: Any) -> Any:
        queries = [GrpcToRest.convert_query_points(query) for query in request.query_points]
        for query in queries:
            query.params = None  # every search is exact here, and the client warns of it
        try:
            answers = await self.client.query_batch_points(request.collection_name, queries)
        except ValueError as error:
            raise refusal(grpc.StatusCode.NOT_FOUND, str(error)) from error
        results = [[RestToGrpc.convert_scored_point(point) for point in answer.points] for answer in answers]
        return wire.QueryBatchResponse(result=[wire.BatchResult(result=points) for points in results])

    async def Count(self, request: Any, **_: Any) -> Any:
        filter_ = GrpcToRest.convert_filter(request.filter) if request.filter.ByteSize() else models.Filter()
        answer = await self.client.count(request.collection_name, count_filter=filter_, exact=True)
        return wire.CountResponse(result=wire.CountResult(count=answer.count))
