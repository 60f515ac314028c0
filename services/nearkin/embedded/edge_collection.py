"""One collection is one Qdrant Edge shard in a folder, and it answers requests of Qdrant's gRPC API.

Edge holds the GIL in every call, so calls are made one after another by the owner's only thread and are never
interleaved; what one call does is atomic to all others. Edge writes each update to its log before it applies it, which
survives the death of the process; syncing the log's files makes it survive the death of the machine.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import qdrant_edge as edge
from google.protobuf import json_format

from nearkin.embedded.edge_messages import (
    FilterReader,
    PointId,
    Refused,
    add_hits,
    bad_request,
    from_payload_map,
    from_point_id,
    from_vector,
    from_vectors,
    payload_selection,
    to_payload_map,
    to_point_id,
    to_vectors,
    unsupported,
    vector_selection,
)
from nearkin.embedded.owned_folder import sync_folder, write_durably
from nearkin.stores.qdrant_stubs import wire

#: After so many updates of a point the segments are flushed and the log is shortened: half a second of a restart.
FLUSH_AFTER_UPDATES = 5000

#: The graph: Qdrant's own defaults, written down because they are told to clients.
HNSW = wire.HnswConfigDiff(m=16, ef_construct=100, full_scan_threshold=10_000)

#: When `optimise` acts: above 20 MB of vectors (13,000 of 384 dimensions) a scan is slower than a graph.
OPTIMIZERS = wire.OptimizersConfigDiff(
    deleted_threshold=0.2,
    vacuum_min_vector_number=1000,
    default_segment_number=1,
    indexing_threshold=20_000,
    flush_interval_sec=5,
)

_DISTANCES = {
    wire.Distance.Cosine: edge.Distance.Cosine,
    wire.Distance.Dot: edge.Distance.Dot,
    wire.Distance.Euclid: edge.Distance.Euclid,
    wire.Distance.Manhattan: edge.Distance.Manhattan,
}

_SCHEMA_TYPES = {
    "keyword": wire.PayloadSchemaType.Keyword,
    "integer": wire.PayloadSchemaType.Integer,
    "float": wire.PayloadSchemaType.Float,
}


def _edge_config(request: wire.CreateCollection) -> edge.EdgeConfig:
    if request.vectors_config.WhichOneof("config") != "params_map":
        raise bad_request("vectors must be named")
    dense = {}
    for name, params in request.vectors_config.params_map.map.items():
        if params.distance not in _DISTANCES or not params.size:
            raise bad_request(f"the vector {name} needs a size and a distance")
        dense[name] = edge.EdgeVectorParams(size=params.size, distance=_DISTANCES[params.distance])
    sparse = {
        name: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf if params.modifier == wire.Modifier.Idf else None)
        for name, params in request.sparse_vectors_config.map.items()
    }
    return edge.EdgeConfig(
        vectors=dense,
        sparse_vectors=sparse,
        on_disk_payload=True,
        # Requests come one at a time, segments are few: more threads cost a third more processor time and save none.
        max_search_threads=1,
        hnsw_config=edge.HnswIndexConfig(
            m=HNSW.m, ef_construct=HNSW.ef_construct, full_scan_threshold=HNSW.full_scan_threshold
        ),
        optimizers=edge.EdgeOptimizersConfig(
            deleted_threshold=OPTIMIZERS.deleted_threshold,
            vacuum_min_vector_number=OPTIMIZERS.vacuum_min_vector_number,
            default_segment_number=OPTIMIZERS.default_segment_number,
            indexing_threshold=OPTIMIZERS.indexing_threshold,
        ),
        wal_enabled=True,
    )


def _index_params(request: wire.CreateFieldIndexCollection) -> Any:
    """The index that is asked for, read through the page cache in optimised segments, which halves the memory.

    Numbers get no links of their own in the graph: a version is never searched by, and a range of prices is any range.
    """
    match request.field_type:
        case wire.FieldType.FieldTypeKeyword:
            return edge.KeywordIndexParams(memory=edge.Memory.Cold)
        case wire.FieldType.FieldTypeFloat:
            return edge.FloatIndexParams(memory=edge.Memory.Cold, enable_hnsw=False)
        case wire.FieldType.FieldTypeInteger:
            asked = request.field_index_params.integer_index_params
            return edge.IntegerIndexParams(
                lookup=asked.lookup if asked.HasField("lookup") else True,
                range=asked.range if asked.HasField("range") else True,
                memory=edge.Memory.Cold,
                enable_hnsw=False,
            )
    raise unsupported(f"an index of type {wire.FieldType.Name(request.field_type)}")


def _type_name(schema_type: edge.PayloadSchemaType) -> str:
    return str(schema_type).rpartition(".")[2].lower()


class EdgeCollection:
    """A collection that is open.

    Args:
        folder: where it lies; `create` makes it.

    Attributes:
        unsynced: whether the log holds more than was synced; whoever syncs it says so here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self.created = json_format.Parse((folder / "collection.json").read_text("utf-8"), wire.CreateCollection())
        self._dimensions = {name: params.size for name, params in self.created.vectors_config.params_map.map.items()}
        self._sparse = frozenset(self.created.sparse_vectors_config.map)
        self._shard = edge.EdgeShard.load(str(folder / "shard"))
        self.unsynced = False
        self._unflushed = 0
        self._read_indexes()

    @classmethod
    def create(cls, folder: Path, request: wire.CreateCollection) -> "EdgeCollection":
        """Make a collection; it appears under its name whole or not at all."""
        unfinished = folder.with_name(f".{folder.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        (unfinished / "shard").mkdir(parents=True)
        edge.EdgeShard.create(str(unfinished / "shard"), _edge_config(request)).close()
        write_durably(unfinished / "collection.json", json_format.MessageToJson(request))
        unfinished.rename(folder)
        sync_folder(folder.parent)
        return cls(folder)

    def delete(self) -> None:
        """Close and remove the collection."""
        self._shard.close()
        gone = self.folder.with_name(f".{self.name}")
        self.folder.rename(gone)
        shutil.rmtree(gone)

    def close(self) -> None:
        """Make everything durable and close."""
        self._shard.flush()
        self._shard.close()

    def log_files(self) -> list[Path]:
        """Where the log of updates lies."""
        return list((self.folder / "shard" / "wal").glob("open-*"))

    def flush(self) -> None:
        """Write segments to disk and shorten the log, where enough was written: some 30 ms in which nothing is served.

        Raises:
            Exception: of Edge's; the next call tries again.
        """
        if self._unflushed >= FLUSH_AFTER_UPDATES:
            self._shard.flush()
            self._unflushed = 0

    def optimise(self) -> bool:
        """Build the graph where there are points enough; nothing else is served meanwhile. Says whether it built."""
        built = self._shard.optimize()
        if built:
            self._shard.flush()
            self._unflushed = 0
        return built

    def info(self) -> wire.CollectionInfo:
        """What the collection is and holds."""
        seen = self._shard.info()
        schema = {
            field: wire.PayloadSchemaInfo(data_type=_SCHEMA_TYPES[_type_name(index.data_type)], points=index.points)
            for field, index in seen.payload_schema.items()
        }
        return wire.CollectionInfo(
            status=wire.CollectionStatus.Green,
            optimizer_status=wire.OptimizerStatus(ok=True),
            segments_count=seen.segments_count,
            points_count=seen.points_count,
            indexed_vectors_count=seen.indexed_vectors_count,
            payload_schema=schema,
            config=wire.CollectionConfig(
                params=wire.CollectionParams(
                    shard_number=1,
                    on_disk_payload=True,
                    vectors_config=self.created.vectors_config,
                    sparse_vectors_config=self.created.sparse_vectors_config,
                ),
                hnsw_config=HNSW,
                optimizer_config=OPTIMIZERS,
                wal_config=wire.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0),
                strict_mode_config=wire.StrictModeConfig(
                    enabled=True, unindexed_filtering_retrieve=False, unindexed_filtering_update=False
                ),
            ),
        )

    def create_field_index(self, request: wire.CreateFieldIndexCollection) -> None:
        """Index a payload field."""
        self._update(edge.UpdateOperation.create_field_index(request.field_name, _index_params(request)))
        self._read_indexes()

    def upsert(self, upsert: wire.UpsertPoints | wire.PointsUpdateOperation.PointStructList) -> None:
        """Write points whole; with a filter, a point that exists is written only where it matches."""
        points = [self._point(point) for point in upsert.points]
        self._update(
            edge.UpdateOperation.upsert_points(
                points,
                condition=self._filters.read(upsert.update_filter) if upsert.HasField("update_filter") else None,
                update_mode=_UPDATE_MODES[upsert.update_mode],
            ),
            len(points),
        )

    def overwrite_payload(self, payload: Any, selector: wire.PointsSelector) -> None:
        """Replace the whole payload of the points that are selected."""
        fields = from_payload_map(payload)
        self._update_selected(
            selector,
            lambda filter_: edge.UpdateOperation.overwrite_payload_by_filter(filter_, fields),
            lambda ids: edge.UpdateOperation.overwrite_payload(ids, fields),
        )

    def set_payload(self, payload: Any, selector: wire.PointsSelector) -> None:
        """Set some fields of the payload of the points that are selected."""
        fields = from_payload_map(payload)
        self._update_selected(
            selector,
            lambda filter_: edge.UpdateOperation.set_payload_by_filter(filter_, fields),
            lambda ids: edge.UpdateOperation.set_payload(ids, fields),
        )

    def delete_points(self, selector: wire.PointsSelector) -> None:
        """Remove the points that are selected."""
        self._update_selected(
            selector, edge.UpdateOperation.delete_points_by_filter, edge.UpdateOperation.delete_points
        )

    def get(self, request: wire.GetPoints) -> wire.GetResponse:
        """Points by their ids; ids that are not held are left out."""
        records = self._shard.retrieve(
            [from_point_id(point_id) for point_id in request.ids],
            with_payload=payload_selection(request.with_payload) if request.HasField("with_payload") else True,
            with_vector=vector_selection(request.with_vectors),
        )
        return wire.GetResponse(result=[_retrieved(record) for record in records])

    def scroll(self, request: wire.ScrollPoints) -> tuple[list[wire.RetrievedPoint], wire.PointId | None]:
        """A page of points in the order of their ids, and where the next page starts."""
        if request.HasField("order_by"):
            raise unsupported("a scroll in the order of a field")
        records, following = self._shard.scroll(
            edge.ScrollRequest(
                offset=from_point_id(request.offset) if request.HasField("offset") else None,
                limit=request.limit if request.HasField("limit") else 10,
                filter=self._filters.read(request.filter) if request.HasField("filter") else None,
                with_payload=payload_selection(request.with_payload) if request.HasField("with_payload") else True,
                with_vector=vector_selection(request.with_vectors),
            )
        )
        return [_retrieved(record) for record in records], to_point_id(following) if following is not None else None

    def count(self, request: wire.CountPoints) -> int:
        """How many points match."""
        filter_ = self._filters.read(request.filter) if request.HasField("filter") else None
        counted: int = self._shard.count(edge.CountRequest(exact=True, filter=filter_))
        return counted

    def query(self, requests: Sequence[wire.QueryPoints]) -> wire.QueryBatchResponse:
        """Nearest neighbours for each request."""
        vectors: dict[tuple[str, str], Any] = {}
        answers = self._shard.query_batch(
            edge.QueryBatchRequest([self._query(request, vectors) for request in requests])
        )
        response = wire.QueryBatchResponse()
        for request, answer in zip(requests, answers, strict=True):
            add_hits(response.result.add(), answer, bare=_is_bare(request))
        return response

    def _query(self, request: wire.QueryPoints, vectors: dict[tuple[str, str], Any]) -> edge.QueryRequest:
        """One request for Edge; stored vectors that were read for the batch already are in `vectors`."""
        if request.prefetch or request.query.WhichOneof("variant") != "nearest":
            raise unsupported("a query other than one nearest-neighbour search")
        filter_ = request.filter
        nearest = request.query.nearest
        if nearest.WhichOneof("variant") == "id":
            asked = (str(nearest.id), request.using)
            vector = vectors.get(asked)
            if vector is None:
                vector = vectors[asked] = self._stored_vector(nearest.id, request.using)
            filter_ = wire.Filter(must_not=[wire.Condition(has_id=wire.HasIdCondition(has_id=[nearest.id]))])
            filter_.MergeFrom(request.filter)
        else:
            vector = from_vector(nearest)
            self._check_vector(request.using, vector)
        return edge.QueryRequest(
            limit=request.limit if request.HasField("limit") else 10,
            offset=request.offset,
            query=edge.Query.Nearest(vector, using=request.using),
            with_payload=payload_selection(request.with_payload),
            with_vector=vector_selection(request.with_vectors),
            filter=self._filters.read(filter_),
            score_threshold=request.score_threshold if request.HasField("score_threshold") else None,
            params=edge.SearchParams(
                hnsw_ef=request.params.hnsw_ef if request.params.HasField("hnsw_ef") else None,
                exact=request.params.exact,
            ),
        )

    def _stored_vector(self, point_id: wire.PointId, using: str) -> Any:
        records = self._shard.retrieve([from_point_id(point_id)], with_payload=False, with_vector=[using])
        if not records:
            raise _not_found(f"No point with id {point_id.uuid or point_id.num} found")
        vectors: Any = records[0].vector or {}
        if using not in vectors:
            raise _not_found(f"Vector with name {using} not found for point {point_id.uuid or point_id.num}")
        return vectors[using]

    def _point(self, point: wire.PointStruct) -> edge.Point:
        vectors = from_vectors(point.vectors)
        for name, vector in vectors.items():
            self._check_vector(name, vector)
        return edge.Point(id=from_point_id(point.id), vector=vectors, payload=from_payload_map(point.payload))

    def _check_vector(self, name: str, vector: Any) -> None:
        """Refuse before the update is logged what Edge would refuse after."""
        if isinstance(vector, edge.SparseVector):
            if name not in self._sparse:
                raise bad_request(f"Not existing vector name error: {name}")
        elif name not in self._dimensions:
            raise bad_request(f"Not existing vector name error: {name}")
        elif len(vector) != self._dimensions[name]:
            raise bad_request(f"Vector dimension error: expected dim: {self._dimensions[name]}, got {len(vector)}")

    def _update(self, operation: edge.UpdateOperation, points: int = 1) -> None:
        """Apply an operation on so many points."""
        self.unsynced = True
        self._unflushed += points
        self._shard.update(operation)

    def _update_selected(
        self,
        selector: wire.PointsSelector,
        by_filter: Callable[[edge.Filter], edge.UpdateOperation],
        by_ids: Callable[[list[PointId]], edge.UpdateOperation],
    ) -> None:
        """Apply the operation that is made for the points selected, by a filter or by their ids."""
        if selector.WhichOneof("points_selector_one_of") == "filter":
            self._update(by_filter(self._filters.read(selector.filter)))
        else:
            ids = [from_point_id(identity) for identity in selector.points.ids]
            self._update(by_ids(ids), len(ids))

    def _read_indexes(self) -> None:
        schema = self._shard.info().payload_schema
        self._filters = FilterReader({field: _type_name(index.data_type) for field, index in schema.items()})


_UPDATE_MODES: Mapping[int, edge.UpdateMode] = {
    wire.UpdateMode.Upsert: edge.UpdateMode.Upsert,
    wire.UpdateMode.InsertOnly: edge.UpdateMode.InsertOnly,
    wire.UpdateMode.UpdateOnly: edge.UpdateMode.UpdateOnly,
}


def _is_bare(request: wire.QueryPoints) -> bool:
    """Whether a request wants neither payload nor vectors, as look-ups do."""
    return not (
        request.with_payload.enable
        or request.with_payload.WhichOneof("selector_options") in ("include", "exclude")
        or request.with_vectors.enable
        or request.with_vectors.WhichOneof("selector_options") == "include"
    )


def _retrieved(record: Any) -> wire.RetrievedPoint:
    return wire.RetrievedPoint(
        id=to_point_id(record.id), payload=to_payload_map(record.payload), vectors=to_vectors(record.vector)
    )


def _not_found(what: str) -> Refused:
    return Refused(grpc.StatusCode.NOT_FOUND, f"Not found: {what}")
