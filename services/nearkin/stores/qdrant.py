"""The index in Qdrant, over gRPC: a server, a cluster, or the embedded index's owner, which answers the same calls.

One physical collection per bundle, `ALIAS-BUNDLE`, and one alias that says which serves. A collection view stays with
its physical collection, so vectors of two bundles never meet. Writes are compare-and-set on the three versions of an
item; the engine says nothing about who lost, so the versions are read back.

The generated stubs are called as they are: the models of qdrant-client cost 9 µs a hit to build, 2 ms in a look-up.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio

from nearkin.contracts.stored import PAYLOAD_INDEXES, facts_of, from_payload, to_facts
from nearkin.core.candidates import ItemFacts
from nearkin.core.errors import Misconfigured, NearkinError, Unavailable
from nearkin.core.ports import IndexCounts, IndexedItem, ItemWrite, Search
from nearkin.core.vectors import Hits, SparseVector, VectorName
from nearkin.ops.credential import Credential
from nearkin.ops.grpc_tls import FollowingChannel
from nearkin.ops.settings import Settings
from nearkin.stores import qdrant_messages as messages
from nearkin.stores.checks import check_writes
from nearkin.stores.qdrant_stubs import wire
from nearkin.stores.remembered_facts import PointVersion, RememberedFacts

#: Making and checking a collection may take longer than a call that serves a request.
PREPARE_TIMEOUT_S = 60.0

#: The largest request that is sent, and how many points are read in one: the largest items stay within the 64 MiB of
#: the embedded index, and a server's own limit.
MOST_BYTES = 16 * 2**20
READ_AT_ONCE = 128

#: How long a resolved alias is believed, in seconds.
ALIAS_AGE_S = 1.0

_FIELD_TYPES = {
    "keyword": (wire.FieldType.FieldTypeKeyword, wire.PayloadSchemaType.Keyword),
    "integer": (wire.FieldType.FieldTypeInteger, wire.PayloadSchemaType.Integer),
    "float": (wire.FieldType.FieldTypeFloat, wire.PayloadSchemaType.Float),
}

#: How integers are compared, because an index that serves both ways costs the memory of both. Nearly every item has
#: versions of its own, and indexes by value of those take 400 bytes an item more than by range.
_BY_RANGE = wire.PayloadIndexParams(integer_index_params=wire.IntegerIndexParams(lookup=False, range=True))
_BY_VALUE = wire.PayloadIndexParams(integer_index_params=wire.IntegerIndexParams(lookup=True, range=False))
_INDEX_PARAMS = {
    "content_version": _BY_RANGE,
    "offer_version": _BY_RANGE,
    "deleted_version": _BY_RANGE,
    "hidden": _BY_VALUE,
}

#: What a failure is known to mean, by its status and by words of its details.
_STATUS_MEANS = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "no answer in time",
    grpc.StatusCode.NOT_FOUND: "a collection is not there",
}
_DETAILS_MEAN = {
    "Connection refused": "connection refused",
    "errors resolving": "its host has no address",
    "DNS resolution failed": "its host has no address",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not of an authority that NEARKIN_QDRANT_CA names, or has expired",
    "Hostname Verification": "its certificate is another host's",
    "No space left on device": "no space left on its disk; free some space, writes resume by themselves",
}

_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
]


def connect(settings: Settings) -> "QdrantIndex":
    """The index that the settings name; nothing is sent before the first call.

    Raises:
        Misconfigured: a file of TLS cannot be used.
    """
    target = target_of(settings.qdrant_url)
    channel: Any
    if tls := settings.qdrant_tls:
        channel = FollowingChannel(grpc.aio.secure_channel, target, tls, _CHANNEL_OPTIONS)
    else:
        channel = grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)
    key = Credential("qdrant_api_key", settings.qdrant_api_key)
    points = wire.PointsStub(channel)  # type: ignore[no-untyped-call]
    collections = wire.CollectionsStub(channel)  # type: ignore[no-untyped-call]
    return QdrantIndex(Calls(points, collections, settings.index_timeout_s, key, channel), settings.index_alias)


def target_of(url: str) -> str:
    """What gRPC connects to: the host and the port of a checked `NEARKIN_QDRANT_URL`, an IPv6 host in its brackets."""
    parts = urlsplit(url)
    return parts.netloc if parts.port else f"{parts.netloc}:6334"


class Calls:
    """Qdrant's stubs with a deadline, the API key, and Nearkin's errors.

    Args:
        points: the stub of Qdrant's Points service, or what answers like it.
        collections: the stub of its Collections service.
        timeout_s: the deadline of a call.
        api_key: gives what is sent with every call where it is not empty.
        channel: closed with this object.
    """

    def __init__(
        self,
        points: Any,
        collections: Any,
        timeout_s: float,
        api_key: Callable[[], str] = str,
        channel: grpc.aio.Channel | FollowingChannel | None = None,
    ) -> None:
        self.points, self.collections, self.timeout_s = points, collections, timeout_s
        self._api_key = api_key
        self._channel = channel

    async def __call__(self, method: Any, request: Any, timeout_s: float | None = None) -> Any:
        """Call a stub's method.

        Raises:
            grpc.aio.AioRpcError: NOT_FOUND, ALREADY_EXISTS or INVALID_ARGUMENT: the caller knows what was asked.
            NearkinError: every other failure.
        """
        key = self._api_key()
        metadata = (("api-key", key),) if key else None
        try:
            return await method(request, timeout=timeout_s or self.timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() in (
                grpc.StatusCode.NOT_FOUND,
                grpc.StatusCode.ALREADY_EXISTS,
                grpc.StatusCode.INVALID_ARGUMENT,
            ):
                raise
            raise translated(error) from error

    async def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close(None)


def translated(error: grpc.aio.AioRpcError) -> NearkinError:
    """What a failed call means to Nearkin, in words of its own.

    Errors reach logs and the callers of look-ups, and an engine may quote a payload or a filter's value: of what it
    says, only the status is told, and what is known and harmless.
    """
    code, details = error.code(), error.details() or ""
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return Misconfigured(
            "the index refuses the API key", field="NEARKIN_QDRANT_API_KEY", remedy="give a key that may write"
        )
    if code is grpc.StatusCode.INVALID_ARGUMENT and "Index required but not found" in details:
        return _unindexed(details)
    if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED):
        return Misconfigured(
            f"the index refuses the request with {code.name}",
            field="NEARKIN_QDRANT_URL",
            remedy="check that it is the gRPC address of a Qdrant of version 1.16 or newer, whose log may say more",
            reason="index_refuses",
        )
    causes = [_STATUS_MEANS[code]] if code in _STATUS_MEANS else []
    causes += [cause for words, cause in _DETAILS_MEAN.items() if words in details]
    return Unavailable("index", ": ".join([code.name, *causes[:1]]))


def _unindexed(details: str) -> Misconfigured:
    field = details.partition('"')[2].partition('"')[0]
    known = field in PAYLOAD_INDEXES
    return Misconfigured(
        f"the collection has no payload index {f'on {field!r}' if known else 'that a condition needs'}",
        field=f"filter.{field}" if known else "filter",
        remedy="leave the condition out, or index the items into a new collection that has the payload index",
        reason="unindexed_filter",
    )


class QdrantCollection:
    """The items of one bundle, in one physical collection."""

    def __init__(self, calls: Calls, name: str, bundle: str) -> None:
        self._calls, self._name, self._bundle = calls, name, bundle
        self._facts = RememberedFacts()

    @property
    def name(self) -> str:
        """The collection's own name, never the alias."""
        return self._name

    @property
    def bundle(self) -> str:
        """The id of the bundle whose vectors it holds."""
        return self._bundle

    async def read(self, ids: Sequence[str]) -> dict[str, IndexedItem]:
        """What is held of these ids; ids that are not held are left out."""
        points = await self._get(_points_of(ids), messages.ITEM_FIELD)
        items = [from_payload({"item": point.payload["item"].string_value}) for point in points]
        return {item.state.id: item for item in items}

    async def read_facts(self, ids: Sequence[str]) -> dict[str, ItemFacts]:
        """What ranking needs of these items; those that are not held or have no content are left out."""
        points = await self._get(_points_of(ids), messages.FACTS_FIELD)
        return {facts.id: facts for facts in await self._facts_of(points) if facts is not None}

    async def write(self, writes: Sequence[ItemWrite]) -> frozenset[str]:
        """Apply compare-and-set writes of distinct items; returns the ids that were not applied."""
        if not writes:
            return frozenset()
        check_writes(writes)
        meant = {write.item.state.id: write.item.state.versions for write in writes}
        for request in self._updates(writes):
            await self._call(self._calls.points.UpdateBatch, request)
        points = await self._get(_points_of(meant), messages.VERSION_FIELDS)
        held = {point.payload["id"].string_value: messages.versions_of(point.payload) for point in points}
        return frozenset(item_id for item_id, versions in meant.items() if held.get(item_id) != versions)

    def _updates(self, writes: Sequence[ItemWrite]) -> Iterator[wire.UpdateBatchPoints]:
        """The writes as requests that the engine takes; an item alone always is one."""
        request = wire.UpdateBatchPoints(
            collection_name=self._name, wait=True, operations=messages.operations_of(writes)
        )
        if len(writes) == 1 or request.ByteSize() <= MOST_BYTES:
            yield request
            return
        half = len(writes) // 2
        yield from self._updates(writes[:half])
        yield from self._updates(writes[half:])

    async def search(self, searches: Sequence[Search]) -> list[Hits]:
        """Run searches together: for each, the hits from best to worst."""
        inputs = {
            at: messages.vector_input(search.query)
            for at, search in enumerate(searches)
            if search.among != () and not (isinstance(search.query, SparseVector) and not len(search.query.indices))
        }
        try:
            return await self._search(searches, inputs)
        except grpc.aio.AioRpcError as error:
            by_id = {at for at in inputs if isinstance(searches[at].query, str)}
            about_index = "Index required" in (error.details() or "")
            if not by_id or about_index or error.code() is grpc.StatusCode.ALREADY_EXISTS:
                raise self._translated(error) from error
        # One query names an item that is not held or lacks the vector: its search has no hits, the others go on.
        stored = await self._stored_inputs({at: searches[at] for at in by_id})
        inputs = {at: query for at, query in inputs.items() if at not in by_id} | stored
        try:
            return await self._search(searches, inputs)
        except grpc.aio.AioRpcError as error:
            raise self._translated(error) from error

    async def count(self) -> IndexCounts:
        """How many points are held."""
        with_vector = wire.Filter(
            must=[wire.Condition(has_vector=wire.HasVectorCondition(has_vector=VectorName.CONTENT.value))]
        )
        points = await self._count(with_vector)
        return IndexCounts(points=points, tombstones=await self._count(wire.Filter()) - points)

    async def _count(self, filter_: wire.Filter) -> int:
        request = wire.CountPoints(collection_name=self._name, filter=filter_, exact=True)
        answer = await self._call(self._calls.points.Count, request)
        counted: int = answer.result.count
        return counted

    async def _search(self, searches: Sequence[Search], inputs: dict[int, wire.VectorInput]) -> list[Hits]:
        """One round trip, and another one for hits of which nothing is remembered."""
        hits = [Hits() for _ in searches]
        if not inputs:
            return hits
        queries = [messages.query_of(self._name, searches[at], query) for at, query in inputs.items()]
        answers = await self._found_by(queries)
        found = [[(point.id.uuid, point.version) for point in points] for points in answers]
        known = [
            await self._told(points) if searches[at].limit <= messages.FEW else self._facts.of(versions)
            for at, points, versions in zip(inputs, answers, found, strict=True)
        ]
        if any(None in facts for facts in known):
            read = await self._read_facts(queries, found, known)
            known = [
                [facts or read.get(uuid) for facts, (uuid, _) in zip(some, points, strict=True)]
                for some, points in zip(known, found, strict=True)
            ]
        for at, points, some in zip(inputs, answers, known, strict=True):
            scores = [point.score for point in points]
            if None in some:
                scores = [score for score, facts in zip(scores, some, strict=True) if facts is not None]
            hits[at] = Hits([facts for facts in some if facts is not None], scores)
        return hits

    async def _found_by(self, queries: Sequence[wire.QueryPoints]) -> list[Sequence[wire.ScoredPoint]]:
        request = wire.QueryBatchPoints(collection_name=self._name, query_points=queries)
        answer = await self._calls(self._calls.points.QueryBatch, request)
        return [one.result for one in answer.result]

    async def _read_facts(
        self,
        queries: Sequence[wire.QueryPoints],
        found: Sequence[Sequence[PointVersion]],
        known: Sequence[Sequence[ItemFacts | None]],
    ) -> dict[str, ItemFacts]:
        """The facts of the points among some hits that are not known, by UUID; they are remembered from now on.

        They are read by the search that found them: a search alone tells facts together with the version that they are
        of, and one replica of a shard may be behind another one.
        """
        asked: set[str] = set()
        again = []
        for query, points, some in zip(queries, found, known, strict=True):
            unknown = {uuid for (uuid, _), facts in zip(points, some, strict=True) if facts is None} - asked
            if unknown:
                asked |= unknown
                again.append(messages.query_facts(query, unknown))
        read: dict[str, ItemFacts] = {}
        for told in await self._found_by(again):
            for point, facts in zip(told, await self._told(told), strict=True):
                if facts is not None:
                    read[point.id.uuid] = facts
        return read

    async def _told(self, points: Sequence[wire.ScoredPoint]) -> list[ItemFacts | None]:
        """The facts that hits carry, which are remembered from now on."""
        told = await self._facts_of(points)
        for point, facts in zip(points, told, strict=True):
            if facts is not None and point.payload["facts"].string_value:  # else made of what another call read
                self._facts.remember((point.id.uuid, point.version), facts)
        return told

    async def _facts_of(self, points: Sequence[wire.ScoredPoint | wire.RetrievedPoint]) -> list[ItemFacts | None]:
        """The facts that points carry; of those that carry none, the whole item is read, None where it has no content.

        None is carried by items without content, and by points that were written before there were facts.
        """
        texts = [point.payload["facts"].string_value for point in points]
        if all(texts):
            return [facts_of(text) for text in texts]
        bare = [point.id for point, text in zip(points, texts, strict=True) if not text]
        made = {
            point.id.uuid: to_facts(from_payload({"item": point.payload["item"].string_value}))
            for point in await self._get(bare, messages.ITEM_FIELD)
        }
        return [facts_of(text) if text else made.get(point.id.uuid) for point, text in zip(points, texts, strict=True)]

    async def _stored_inputs(self, searches: dict[int, Search]) -> dict[int, wire.VectorInput]:
        """The stored vectors that searches by id ask for, where there are any."""
        ids = list({search.query for search in searches.values() if isinstance(search.query, str)})
        every = wire.WithVectorsSelector(enable=True)
        points = await self._get(_points_of(ids), messages.NO_FIELD, every)
        vectors = {point.id.uuid: point.vectors.vectors.vectors for point in points}
        inputs = {}
        for at, search in searches.items():
            held = vectors.get(messages.point_id(str(search.query)).uuid)
            if held is not None and search.using.value in held:
                inputs[at] = messages.stored_input(held[search.using.value])
        return inputs

    async def _get(
        self,
        ids: Sequence[wire.PointId],
        payload: wire.WithPayloadSelector,
        vectors: wire.WithVectorsSelector | None = None,
    ) -> Sequence[wire.RetrievedPoint]:
        points: list[wire.RetrievedPoint] = []
        for start in range(0, len(ids), READ_AT_ONCE):
            request = wire.GetPoints(
                collection_name=self._name,
                ids=ids[start : start + READ_AT_ONCE],
                with_payload=payload,
                with_vectors=vectors,
            )
            points += (await self._call(self._calls.points.Get, request)).result
        return points

    async def _call(self, method: Any, request: Any) -> Any:
        try:
            return await self._calls(method, request)
        except grpc.aio.AioRpcError as error:
            raise self._translated(error) from error

    def _translated(self, error: grpc.aio.AioRpcError) -> NearkinError:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            self._facts = RememberedFacts()  # one that is made again under its name counts from the start
            return Unavailable(
                "index", f"the collection {self._name} is not there; restart this process if it was deleted"
            )
        return translated(error)


def _points_of(ids: Iterable[str]) -> list[wire.PointId]:
    return [messages.point_id(item_id) for item_id in ids]


class QdrantIndex:
    """Collections by bundle, and the alias that says which one serves.

    Args:
        calls: how Qdrant is reached.
        alias: the alias's name, and the prefix of every collection's.
    """

    def __init__(self, calls: Calls, alias: str) -> None:
        self._calls, self._alias = calls, alias
        self._serving: QdrantCollection | None = None
        self._resolved_at = 0.0

    async def prepare(self, bundle: str, dimensions: int) -> QdrantCollection:
        """The collection of a bundle, made if missing, with the alias set if nothing serves yet.

        Raises:
            Misconfigured: a collection of that name exists with other dimensions, distance or payload indexes.
        """
        name = f"{self._alias}-{bundle}"
        info = await self._info(name)
        if info is None:
            await self._create(name, dimensions)
            info = await self._info(name)
            if info is None:
                raise Unavailable("index", f"the collection {name} was made and is not there")
        _check(name, info, dimensions)
        await self._complete(name, info)
        if await self._resolve() is None:
            create = wire.CreateAlias(collection_name=name, alias_name=self._alias)
            await self._prepare(
                self._calls.collections.UpdateAliases,
                wire.ChangeAliases(actions=[wire.AliasOperations(create_alias=create)]),
            )
            self._serving = None
        return QdrantCollection(self._calls, name, bundle)

    async def serving(self) -> QdrantCollection:
        """The collection that the alias names now, as of a second ago at most.

        Raises:
            Unavailable: nothing serves yet, or the engine does not answer.
        """
        if self._serving is not None and time.monotonic() - self._resolved_at < ALIAS_AGE_S:
            return self._serving
        asked_at = time.monotonic()
        name = await self._resolve()
        if name is None:
            self._serving = None  # what is remembered of it, too
            raise Unavailable("index", f"no collection serves under the alias {self._alias} yet")
        if self._serving is None or self._serving.name != name:
            self._serving = QdrantCollection(self._calls, name, name.removeprefix(f"{self._alias}-"))
        self._resolved_at = asked_at
        return self._serving

    async def close(self) -> None:
        """Release connections."""
        await self._calls.close()

    async def _resolve(self) -> str | None:
        answer = await self._prepare(
            self._calls.collections.ListAliases, wire.ListAliasesRequest(), self._calls.timeout_s
        )
        for alias in answer.aliases:
            if alias.alias_name == self._alias:
                return str(alias.collection_name)
        return None

    async def _info(self, name: str) -> wire.CollectionInfo | None:
        try:
            answer = await self._calls(
                self._calls.collections.Get, wire.GetCollectionInfoRequest(collection_name=name), PREPARE_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise translated(error) from error
        info: wire.CollectionInfo = answer.result
        return info

    async def _create(self, name: str, dimensions: int) -> None:
        content = wire.VectorParams(size=dimensions, distance=wire.Distance.Cosine)
        request = wire.CreateCollection(
            collection_name=name,
            on_disk_payload=True,
            vectors_config=wire.VectorsConfig(params_map=wire.VectorParamsMap(map={VectorName.CONTENT.value: content})),
            sparse_vectors_config=wire.SparseVectorConfig(
                map={VectorName.LEXICAL.value: wire.SparseVectorParams(modifier=wire.Modifier.Idf)}
            ),
            strict_mode_config=wire.StrictModeConfig(
                enabled=True, unindexed_filtering_retrieve=False, unindexed_filtering_update=False
            ),
        )
        try:
            await self._calls(self._calls.collections.Create, request, PREPARE_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            # Another process made it first; what it made is checked like any other.
            if "already exists" not in (error.details() or ""):
                raise translated(error) from error

    async def _complete(self, name: str, info: wire.CollectionInfo) -> None:
        """Make the payload indexes that an empty collection lacks: it is new, or its maker died half-way."""
        for field, kind in PAYLOAD_INDEXES.items():
            if field not in info.payload_schema:
                request = wire.CreateFieldIndexCollection(
                    collection_name=name,
                    wait=True,
                    field_name=field,
                    field_type=_FIELD_TYPES[kind][0],
                    field_index_params=_INDEX_PARAMS.get(field),
                )
                await self._prepare(self._calls.points.CreateFieldIndex, request)

    async def _prepare(self, method: Any, request: Any, timeout_s: float = PREPARE_TIMEOUT_S) -> Any:
        try:
            return await self._calls(method, request, timeout_s)
        except grpc.aio.AioRpcError as error:
            raise translated(error) from error


def _check(name: str, info: wire.CollectionInfo, dimensions: int) -> None:
    """Refuse a collection that is not as `prepare` would make it.

    Raises:
        Misconfigured: names the collection, the first difference and the remedy.
    """
    difference = _difference(info, dimensions)
    if difference:
        raise Misconfigured(
            difference,
            field=name,
            remedy="delete the collection, or set NEARKIN_INDEX_ALIAS to another name, and publish the items again",
            reason="collection",
        )


def _difference(info: wire.CollectionInfo, dimensions: int) -> str:
    params = info.config.params
    dense = params.vectors_config.params_map.map
    if VectorName.CONTENT.value not in dense:
        return "the collection has no dense vector named 'content'"
    content = dense[VectorName.CONTENT.value]
    if content.size != dimensions:
        return f"the collection holds vectors of {content.size} dimensions, the bundle makes {dimensions}"
    if content.distance != wire.Distance.Cosine:
        return f"the collection compares by {wire.Distance.Name(content.distance)}, it must be Cosine"
    sparse = params.sparse_vectors_config.map
    if VectorName.LEXICAL.value not in sparse or sparse[VectorName.LEXICAL.value].modifier != wire.Modifier.Idf:
        return "the collection has no sparse vector named 'lexical' with the modifier Idf"
    for field, kind in PAYLOAD_INDEXES.items():
        if field not in info.payload_schema:
            if info.points_count:
                return f"the collection holds points and has no payload index on {field!r}"
        elif info.payload_schema[field].data_type != _FIELD_TYPES[kind][1]:
            found = wire.PayloadSchemaType.Name(info.payload_schema[field].data_type).lower()
            return f"the payload index on {field!r} is of type {found}, it must be {kind}"
    return ""
