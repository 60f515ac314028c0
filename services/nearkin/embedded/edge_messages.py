"""Qdrant's gRPC messages and Qdrant Edge's objects are the same ideas in two dresses; this is the tailor.

Only what Nearkin uses has a translation. Anything else is refused by name, never dropped in silence: a filter that
lost a condition would answer with items that were asked to stay away.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from uuid import UUID

import grpc
import qdrant_edge as edge

from nearkin.stores.qdrant_stubs import wire

#: As Edge takes and gives it; it gives no strings.
PointId = int | UUID | str


class Refused(Exception):
    """A request that cannot be served, with the gRPC status that says so."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def unsupported(what: str) -> Refused:
    """The answer to a part of Qdrant's API that the embedded index does not serve."""
    return Refused(
        grpc.StatusCode.UNIMPLEMENTED, f"The embedded index does not serve {what}; use a Qdrant server for it"
    )


def bad_request(problem: str) -> Refused:
    """The answer to a request that breaks the API's rules, worded as a Qdrant server words it."""
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, f"Bad request: {problem}")


def to_value(value: Any) -> wire.Value:
    """A JSON value as a message."""
    if isinstance(value, str):
        return wire.Value(string_value=value)
    if isinstance(value, bool):
        return wire.Value(bool_value=value)
    if isinstance(value, int):
        return wire.Value(integer_value=value)
    if isinstance(value, float):
        return wire.Value(double_value=value)
    if value is None:
        return wire.Value(null_value=wire.NullValue.NULL_VALUE)
    if isinstance(value, Mapping):
        return wire.Value(struct_value=wire.Struct(fields={key: to_value(item) for key, item in value.items()}))
    return wire.Value(list_value=wire.ListValue(values=[to_value(item) for item in value]))


def from_value(value: wire.Value) -> Any:
    """A message as a JSON value."""
    kind = value.WhichOneof("kind")
    if kind == "list_value":
        return [from_value(item) for item in value.list_value.values]
    if kind == "struct_value":
        return from_payload_map(value.struct_value.fields)
    if kind is None or kind == "null_value":
        return None
    return getattr(value, kind)


def from_payload_map(payload: Mapping[str, wire.Value]) -> dict[str, Any]:
    """A payload as a message carries it, as JSON."""
    return {key: from_value(value) for key, value in payload.items()}


def to_payload_map(payload: Mapping[str, Any] | None) -> dict[str, wire.Value]:
    """A JSON payload as a message carries it."""
    return {key: to_value(value) for key, value in payload.items()} if payload else {}


#: A search may name hundreds of points, and the next one names many of them again.
_parsed = lru_cache(maxsize=2**16)(UUID)


def from_point_id(point_id: wire.PointId) -> PointId:
    """A point's id as Edge takes it."""
    if point_id.WhichOneof("point_id_options") == "uuid":
        try:
            return _parsed(point_id.uuid)
        except ValueError as error:
            raise bad_request(f"unable to parse UUID: {point_id.uuid}") from error
    return point_id.num


def to_point_id(point_id: PointId) -> wire.PointId:
    """A point's id as a message."""
    return wire.PointId(num=point_id) if isinstance(point_id, int) else wire.PointId(uuid=str(point_id))


def add_hits(hits: wire.BatchResult, points: Sequence[Any], *, bare: bool) -> None:
    """The points that a search found, as a message.

    Args:
        hits: to which they are added.
        points: from best to worst.
        bare: whether they carry nothing but their ids, scores and versions.
    """
    if not bare:
        hits.result.extend(
            [
                wire.ScoredPoint(
                    id=to_point_id(point.id),
                    payload=to_payload_map(point.payload),
                    score=point.score,
                    version=point.version,
                    vectors=to_vectors(point.vector),
                )
                for point in points
            ]
        )
        return
    # Encoded messages that are joined are one message with all their hits (protobuf's rule of merging): a third of the
    # time of making each by itself.
    hits.MergeFromString(b"".join([_bare_hit(point.id) for point in points]))
    for hit, point in zip(hits.result, points, strict=True):
        hit.score, hit.version = point.score, point.version


def _bare_hit(point_id: PointId) -> bytes:
    """A `BatchResult` with one hit that has nothing but its id, encoded."""
    return _uuid_hit(point_id.int) if isinstance(point_id, UUID) else _encoded_hit(point_id)


@lru_cache(maxsize=2**15)
def _uuid_hit(number: int) -> bytes:
    return _encoded_hit(UUID(int=number))  # a number is found faster than a UUID


def _encoded_hit(point_id: PointId) -> bytes:
    return wire.BatchResult(result=[wire.ScoredPoint(id=to_point_id(point_id))]).SerializeToString()


def _sparse(indices: Sequence[int], values: Sequence[float]) -> edge.SparseVector:
    if len(indices) != len(values):
        raise bad_request("a sparse vector must have as many values as indices")
    if len(set(indices)) != len(indices):
        raise bad_request("the indices of a sparse vector must be unique")
    return edge.SparseVector(list(indices), list(values))


def from_vector(vector: wire.Vector | wire.VectorInput) -> Any:
    """One named vector as Edge takes it: for a dense one a list, which it reads three times as fast as an array."""
    kind = vector.WhichOneof("vector") if isinstance(vector, wire.Vector) else vector.WhichOneof("variant")
    if kind == "dense":
        return vector.dense.data[:]
    if kind == "sparse":
        return _sparse(vector.sparse.indices, vector.sparse.values)
    if kind is None and isinstance(vector, wire.Vector):
        if vector.HasField("indices"):
            return _sparse(vector.indices.data, vector.data)
        return vector.data[:]
    raise unsupported(f"a vector of kind {kind}")


def from_vectors(vectors: wire.Vectors) -> dict[str, Any]:
    """All named vectors of a point; a point may have none."""
    if vectors.WhichOneof("vectors_options") == "vector":
        raise bad_request("vectors must be named")
    return {name: from_vector(vector) for name, vector in vectors.vectors.vectors.items()}


def to_vectors(vectors: Mapping[str, Any] | None) -> wire.VectorsOutput | None:
    """Stored vectors as a message."""
    if vectors is None:
        return None
    named = {
        name: wire.VectorOutput(sparse=wire.SparseVector(indices=vector.indices, values=vector.values))
        if isinstance(vector, edge.SparseVector)
        else wire.VectorOutput(dense=wire.DenseVector(data=vector))
        for name, vector in vectors.items()
    }
    return wire.VectorsOutput(vectors=wire.NamedVectorsOutput(vectors=named))


def payload_selection(selector: wire.WithPayloadSelector) -> Any:
    """Which payload fields to return, as Edge takes it."""
    kind = selector.WhichOneof("selector_options")
    if kind == "include":
        return list(selector.include.fields)
    if kind == "exclude":
        return edge.PayloadSelector.Exclude(list(selector.exclude.fields))
    return bool(selector.enable)


def vector_selection(selector: wire.WithVectorsSelector) -> bool | list[str]:
    """Which vectors to return, as Edge takes it."""
    if selector.WhichOneof("selector_options") == "include":
        return list(selector.include.names)
    return bool(selector.enable)


_MATCHES: Mapping[str, Callable[[wire.Match], Any]] = {
    "keyword": lambda match: edge.MatchValue(match.keyword),
    "integer": lambda match: edge.MatchValue(match.integer),
    "boolean": lambda match: edge.MatchValue(match.boolean),
    "keywords": lambda match: edge.MatchAny(list(match.keywords.strings)),
    "integers": lambda match: edge.MatchAny(list(match.integers.integers)),
    "except_keywords": lambda match: edge.MatchExcept(list(match.except_keywords.strings)),
    "except_integers": lambda match: edge.MatchExcept(list(match.except_integers.integers)),
}

#: The types of index that can serve each kind of match.
_MATCH_INDEXES: Mapping[str, tuple[str, ...]] = {
    "keyword": ("keyword", "uuid"),
    "keywords": ("keyword", "uuid"),
    "except_keywords": ("keyword", "uuid"),
    "integer": ("integer",),
    "integers": ("integer",),
    "except_integers": ("integer",),
    "boolean": ("bool",),
}


class FilterReader:
    """Translates filters for one collection, refusing a condition on a field without an index.

    Edge would answer such a filter by reading the payload of every point; a Qdrant server in strict mode refuses it,
    and so does this, with the server's words.

    Args:
        indexed: the indexed payload fields, each with its type in lower case, such as ``keyword``.
    """

    def __init__(self, indexed: Mapping[str, str]) -> None:
        self._indexed = indexed

    def read(self, filter_: wire.Filter) -> edge.Filter:
        """The same filter for Edge."""
        least = None
        if filter_.HasField("min_should"):
            least = edge.MinShould(self._conditions(filter_.min_should.conditions), filter_.min_should.min_count)
        return edge.Filter(
            must=self._conditions(filter_.must) or None,
            should=self._conditions(filter_.should) or None,
            must_not=self._conditions(filter_.must_not) or None,
            min_should=least,
        )

    def _conditions(self, conditions: Iterable[wire.Condition]) -> list[Any]:
        return [self._condition(condition) for condition in conditions]

    def _condition(self, condition: wire.Condition) -> Any:
        kind = condition.WhichOneof("condition_one_of")
        match kind:
            case "field":
                return self._field(condition.field)
            case "has_id":
                return edge.HasIdCondition({from_point_id(point_id) for point_id in condition.has_id.has_id})
            case "filter":
                return self.read(condition.filter)
            case "is_empty":
                self._require(condition.is_empty.key, ())
                return edge.IsEmptyCondition(condition.is_empty.key)
            case "has_vector":
                return edge.HasVectorCondition(condition.has_vector.has_vector)
        raise unsupported(f"a filter condition of kind {kind}")

    def _field(self, field: wire.FieldCondition) -> Any:
        if field.HasField("match"):
            kind = field.match.WhichOneof("match_value")
            if kind is None or kind not in _MATCHES:
                raise unsupported(f"a match of kind {kind}")
            self._require(field.key, _MATCH_INDEXES[kind])
            return edge.FieldCondition(key=field.key, match=_MATCHES[kind](field.match))
        if field.HasField("range"):
            self._require(field.key, ("integer", "float"))
            bounds = {name.name: value for name, value in field.range.ListFields()}
            return edge.FieldCondition(key=field.key, range=edge.RangeFloat(**bounds))
        raise unsupported(f"this condition on {field.key}")

    def _require(self, key: str, types: Sequence[str]) -> None:
        if key in self._indexed and (not types or self._indexed[key] in types):
            return
        raise bad_request(
            f'Index required but not found for "{key}" of one of the following types: [{", ".join(types)}]. '
            "Help: Create an index for this key or use a different filter."
        )
