"""Look up similar items: `LookupClient` in asyncio code, `BlockingLookupClient` in all other.

Both keep one connection, which they open at the first call and open again when it breaks; a call that the service
could not take (UNAVAILABLE) is tried again within its deadline. What fails raises one of `nearkin.core.errors`:
`UnknownItem`, `InvalidRequest`, `Misconfigured`, `Unavailable`, `DeadlineExceeded`, `Overloaded`; a call on a closed
client, a plain `PermanentError`.

The two say the same parameters twice on purpose: one base for both would have to hide from a reader, and from `help`,
what a call returns and that it is awaited. What a call means is below them, once.
"""

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

import grpc
import msgspec

from nearkin.contracts.v1 import lookup_pb2 as wire
from nearkin.contracts.v1.lookup_pb2_grpc import LookupServiceStub
from nearkin.contracts.wrong_type import field_of, wrong_type
from nearkin.core.errors import (
    DeadlineExceeded,
    InvalidRequest,
    Misconfigured,
    NearkinError,
    Overloaded,
    PermanentError,
    Unavailable,
    UnknownItem,
)
from nearkin.core.filters import ItemFilter
from nearkin.core.item import CategoryPath, Content
from nearkin.core.retrieval import Ranking, Retrieval
from nearkin.ops.addresses import split_target
from nearkin.ops.credential import Credential
from nearkin.ops.grpc_tls import FollowingChannel
from nearkin.ops.settings import Settings
from nearkin.ops.tls import Tls

#: How long a call may take that does not say, in seconds.
DEFAULT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Source:
    """Who named a neighbour.

    Attributes:
        name: "content" (the search by meaning), "lexical" (by words), "pairs" (what people did with it beside this
            anchor), "co_visits", "popular" or "pinned"; and "explored" where not the order but the last draw put it
            there.
        score: what that source gave it; scores of two sources do not compare. For "explored" the propensity.
        rank: its place there, from 1.
    """

    name: str
    score: float
    rank: int


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An item that is similar to the anchor.

    Attributes:
        id: the item's id.
        score: what ranking gave it, higher is better; comparable within one answer only. The neighbours need not be in
            its order: pins, diversity and the draw come after it.
        title: the item's title; empty where the index could not be asked.
        sources: who named it, where an explanation was asked for.
        propensity: with which probability the item stands at this position, over the service's draws: send it back in
            impressions. 0 where the service does not say.
        features: what is known of it beside this anchor, by the features' names, where an explanation was asked for.
        contributions: what each feature adds to the score, by the same names.
    """

    id: str
    score: float
    title: str
    sources: tuple[Source, ...] = ()
    propensity: float = 0.0
    features: Mapping[str, float] = field(default_factory=dict)
    contributions: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Moved:
    """What a rule or diversity did to one item.

    Attributes:
        id: the item's id.
        by: what moved it: a rule, such as "blocked_item", "variant", "near_duplicate" or "pin", or "diversity".
        rank_before: where it stood, from 1: for a rule by score among all candidates, for diversity among what the
            rules left.
        rank_after: where it stands then: for a pin among the pins, for diversity as before; None where it was taken
            out.
        because_of: the item above it that it had to make room for: the other variant, or what is the same to a person;
            empty where it is none.
    """

    id: str
    by: str
    rank_before: int
    rank_after: int | None
    because_of: str = ""


@dataclass(frozen=True, slots=True)
class SimilarItems:
    """The answer to one look-up.

    Attributes:
        neighbours: the neighbours of the anchor, as they are to be shown, the first on top.
        collection: which collection of the index gave them; empty where the index could not be asked.
        bundle: the encoder bundle whose space it holds.
        request_id: names the look-up: in impressions, in interactions, and where the service logs its answers.
        degraded: what the answer had to do without, such as "evidence" or "index"; empty where it is whole.
        ranking: the id of the weights that gave the scores, such as "default-1", with the ranking where it is not
            combined, such as "default-1:content"; "dense" or "lexical" for one search's own order.
        moved: what rules did, and then what diversity did, where an explanation was asked for.
        draw: how the last draw came out: "greedy" (the order as it is), "shuffled" or "new_item".
    """

    neighbours: tuple[Neighbour, ...]
    collection: str
    bundle: str
    request_id: str = ""
    degraded: tuple[str, ...] = ()
    ranking: str = ""
    moved: tuple[Moved, ...] = ()
    draw: str = ""


class ItemStatus(StrEnum):
    """What the index holds of an item: nothing, one that look-ups return, a hidden or deleted one, or only an offer."""

    UNKNOWN = "unknown"
    VISIBLE = "visible"
    HIDDEN = "hidden"
    DELETED = "deleted"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """What the index holds of one item; a version is None where no such event was seen.

    Attributes:
        id: the item's id.
        status: whether a look-up can return it, and if not, why.
        content_version: of the newest content.
        offer_version: of the newest offer.
        deleted_version: of the newest deletion.
        title: the item's title.
        indexed_at_ms: when it was last written, in milliseconds since the epoch; 0 where nothing is held.
        bundle: the encoder bundle of the collection that was asked.
    """

    id: str
    status: ItemStatus
    content_version: int | None = None
    offer_version: int | None = None
    deleted_version: int | None = None
    title: str = ""
    indexed_at_ms: int = 0
    bundle: str = ""


class LookupClient:
    """Looks up from asyncio code; use it as `async with LookupClient("host:port") as lookups`.

    Args:
        address: host:port of the look-up service, or a gRPC target such as dns:///lookup:7700.
        tls: how the connection is protected; in the open where it is None. Files that change are read again.
        token: what the service asks callers for, or gives it whenever it is asked; none where it is None.

    Raises:
        Misconfigured: the address is none; or, at the first call, a file of TLS cannot be used.
    """

    def __init__(self, address: str, *, tls: Tls | None = None, token: str | Callable[[], str] | None = None) -> None:
        self._address, self._tls, self._token = _checked(address), tls, token
        self._channel: grpc.aio.Channel | FollowingChannel | None = None
        self._stub: Any = None
        self._closed = False

    @classmethod
    def by_settings(cls, settings: Settings) -> Self:
        """To the service that the settings name, as they say."""
        token = Credential("lookup_token", settings.lookup_token)
        return cls(settings.lookup_address, tls=settings.lookup_caller_tls, token=token)

    async def similar(
        self,
        *,
        item_id: str | None = None,
        content: Content | None = None,
        k: int | None = None,
        filter: ItemFilter | None = None,  # noqa: A002  # the contract's word
        retrieval: Retrieval = Retrieval.FUSED,
        explain: bool = False,
        ranking: Ranking | None = None,
        request_id: str = "",
        surface: str = "",
        no_exploration: bool = False,
        pinned_ids: Sequence[str] = (),
        popular_if_unknown: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> SimilarItems:
        """The items most similar to an item of the index, or to the content of one that need not be there.

        Args:
            item_id: the anchor, or
            content: what the anchor is.
            k: how many neighbours at most; the service's default (10) where it is not given.
            filter: conditions that every neighbour meets.
            retrieval: which searches the neighbours come from.
            explain: tell each neighbour's sources, features and contributions, and what was moved.
            ranking: what decides their order: content, what people did, or both; both where it is not given. Only
                fused retrieval is ranked.
            request_id: names the look-up. The same id draws the same, so that a call that is sent again has the same
                answer; where it is not given, the client makes one, so that its own tries are one look-up.
            surface: where the answer will be shown, such as "product-page".
            no_exploration: answer with the best that is known, and draw nothing.
            pinned_ids: items that stand first, in this order, where the filter and the service's rules admit them.
            popular_if_unknown: answer with what is popular where the anchor is not in the index.
            timeout_s: how long the call may take.
        """
        request = _request(
            _anchor(item_id, content),
            k,
            filter,
            retrieval,
            ranking,
            explain=explain,
            request_id=request_id,
            surface=surface,
            no_exploration=no_exploration,
            pinned_ids=pinned_ids,
            popular_if_unknown=popular_if_unknown,
        )
        return _similar(await self._call("FindSimilar", request, timeout_s))

    async def similar_many(
        self,
        anchors: Sequence[str | Content],
        *,
        k: int | None = None,
        filter: ItemFilter | None = None,  # noqa: A002  # the contract's word
        retrieval: Retrieval = Retrieval.FUSED,
        explain: bool = False,
        ranking: Ranking | None = None,
        surface: str = "",
        no_exploration: bool = False,
        popular_if_unknown: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> list[SimilarItems | NearkinError]:
        """The same for up to 100 anchors, each an item's id or a content, in one call; each look-up has its own name.

        Returns:
            For each anchor, in order, its neighbours or what is wrong with it.
        """
        request = _batch(
            anchors,
            k,
            filter,
            retrieval,
            ranking,
            explain=explain,
            surface=surface,
            no_exploration=no_exploration,
            popular_if_unknown=popular_if_unknown,
        )
        return _similar_many(await self._call("FindSimilarBatch", request, timeout_s))

    async def items(self, ids: Sequence[str], *, timeout_s: float = DEFAULT_TIMEOUT_S) -> list[ItemRecord]:
        """What the index holds of up to 1,000 items, in order."""
        return _items(await self._call("GetItems", _ids(ids), timeout_s))

    async def close(self) -> None:
        """Close the connection, and end the calls that run."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, method: str, request: Any, timeout_s: float) -> Any:
        _require_seconds(timeout_s)
        if self._closed:
            raise _closed()
        if self._channel is None:
            # The channel belongs to the event loop that runs when it is made.
            self._channel = (
                grpc.aio.insecure_channel(self._address, options=_OPTIONS)
                if self._tls is None
                else FollowingChannel(grpc.aio.secure_channel, self._address, self._tls, _OPTIONS)
            )
            self._stub = LookupServiceStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        try:
            return await getattr(self._stub, method)(request, timeout=timeout_s, metadata=_metadata(self._token))
        except grpc.aio.AioRpcError as error:
            raise _failure(error.code(), error.details() or "", timeout_s) from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if self._closed and not (task and task.cancelling()):
                raise _closed() from error  # gRPC cancels what runs on a channel that is closed
            raise


class BlockingLookupClient:
    """Looks up from code without an event loop, from any thread; use it in a `with` statement.

    Args:
        address: host:port of the look-up service, or a gRPC target such as dns:///lookup:7700.
        tls: how the connection is protected; in the open where it is None. Files that change are read again.
        token: what the service asks callers for, or gives it whenever it is asked; none where it is None.

    Raises:
        Misconfigured: the address is none, or a file of TLS cannot be used.
    """

    def __init__(self, address: str, *, tls: Tls | None = None, token: str | Callable[[], str] | None = None) -> None:
        self._channel = (
            grpc.insecure_channel(_checked(address), options=_OPTIONS)
            if tls is None
            else FollowingChannel(grpc.secure_channel, _checked(address), tls, _OPTIONS)
        )
        self._token = token
        self._closed = False
        self._stub: Any = LookupServiceStub(self._channel)  # type: ignore[no-untyped-call]  # generated

    @classmethod
    def by_settings(cls, settings: Settings) -> Self:
        """To the service that the settings name, as they say."""
        token = Credential("lookup_token", settings.lookup_token)
        return cls(settings.lookup_address, tls=settings.lookup_caller_tls, token=token)

    def similar(
        self,
        *,
        item_id: str | None = None,
        content: Content | None = None,
        k: int | None = None,
        filter: ItemFilter | None = None,  # noqa: A002  # the contract's word
        retrieval: Retrieval = Retrieval.FUSED,
        explain: bool = False,
        ranking: Ranking | None = None,
        request_id: str = "",
        surface: str = "",
        no_exploration: bool = False,
        pinned_ids: Sequence[str] = (),
        popular_if_unknown: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> SimilarItems:
        """As `LookupClient.similar`."""
        request = _request(
            _anchor(item_id, content),
            k,
            filter,
            retrieval,
            ranking,
            explain=explain,
            request_id=request_id,
            surface=surface,
            no_exploration=no_exploration,
            pinned_ids=pinned_ids,
            popular_if_unknown=popular_if_unknown,
        )
        return _similar(self._call("FindSimilar", request, timeout_s))

    def similar_many(
        self,
        anchors: Sequence[str | Content],
        *,
        k: int | None = None,
        filter: ItemFilter | None = None,  # noqa: A002  # the contract's word
        retrieval: Retrieval = Retrieval.FUSED,
        explain: bool = False,
        ranking: Ranking | None = None,
        surface: str = "",
        no_exploration: bool = False,
        popular_if_unknown: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> list[SimilarItems | NearkinError]:
        """As `LookupClient.similar_many`."""
        request = _batch(
            anchors,
            k,
            filter,
            retrieval,
            ranking,
            explain=explain,
            surface=surface,
            no_exploration=no_exploration,
            popular_if_unknown=popular_if_unknown,
        )
        return _similar_many(self._call("FindSimilarBatch", request, timeout_s))

    def items(self, ids: Sequence[str], *, timeout_s: float = DEFAULT_TIMEOUT_S) -> list[ItemRecord]:
        """As `LookupClient.items`."""
        return _items(self._call("GetItems", _ids(ids), timeout_s))

    def close(self) -> None:
        """Close the connection, and end the calls that run."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: str, request: Any, timeout_s: float) -> Any:
        _require_seconds(timeout_s)
        try:
            return getattr(self._stub, method)(request, timeout=timeout_s, metadata=_metadata(self._token))
        except ValueError as error:
            if self._closed:
                raise _closed() from error
            raise
        except grpc.RpcError as error:
            if self._closed and error.code() is grpc.StatusCode.CANCELLED:
                raise _closed() from error
            raise _failure(error.code(), error.details() or "", timeout_s) from error


_T = TypeVar("_T")

_SERVICE = wire.DESCRIPTOR.services_by_name["LookupService"].full_name

_OPTIONS: list[tuple[str, Any]] = [
    (
        "grpc.service_config",
        json.dumps(
            {
                "loadBalancingConfig": [{"round_robin": {}}],
                "methodConfig": [
                    {
                        "name": [{"service": _SERVICE}],
                        "retryPolicy": {
                            "maxAttempts": 4,
                            "initialBackoff": "0.05s",
                            "maxBackoff": "1s",
                            "backoffMultiplier": 3,
                            # CANCELLED is what a server says of calls that it has not taken when it ends.
                            "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                        },
                    }
                ],
                # Where more than a third fail so, nothing is sent again: it would be load on those that have too much.
                "retryThrottling": {"maxTokens": 50, "tokenRatio": 0.5},
            }
        ),
    ),
    # A connection that died without a word is found out within 40 s, an answering server within a second.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A hundred anchors of 200 neighbours are more than gRPC's default of 4 MiB.
    ("grpc.max_receive_message_length", -1),
    # Look-ups stay inside; gRPC would send them through the http_proxy of the environment.
    ("grpc.enable_http_proxy", 0),
]

_RETRIEVALS = {
    Retrieval.FUSED: wire.RETRIEVAL_FUSED,
    Retrieval.DENSE: wire.RETRIEVAL_DENSE,
    Retrieval.LEXICAL: wire.RETRIEVAL_LEXICAL,
}

_RANKINGS = {
    None: wire.RANKING_UNSPECIFIED,
    Ranking.COMBINED: wire.RANKING_COMBINED,
    Ranking.CONTENT: wire.RANKING_CONTENT,
    Ranking.EVIDENCE: wire.RANKING_EVIDENCE,
}

_STATUSES = {
    wire.ITEM_STATUS_UNKNOWN: ItemStatus.UNKNOWN,
    wire.ITEM_STATUS_VISIBLE: ItemStatus.VISIBLE,
    wire.ITEM_STATUS_HIDDEN: ItemStatus.HIDDEN,
    wire.ITEM_STATUS_DELETED: ItemStatus.DELETED,
    wire.ITEM_STATUS_PENDING: ItemStatus.PENDING,
}


def _metadata(token: str | Callable[[], str] | None) -> tuple[tuple[str, str], ...]:
    shown = token() if callable(token) else token
    if not shown:
        return ()
    if not re.fullmatch("[!-~]+", shown):  # gRPC would quote it in what it raises
        raise Misconfigured(
            "it has characters that cannot be sent", field="token", remedy="give printable ASCII without blanks"
        )
    return (("authorization", f"Bearer {shown}"),)


def _checked(address: str) -> str:
    try:
        split_target(address)
    except (ValueError, TypeError) as error:
        raise Misconfigured(str(error), field="address", remedy="give such as 127.0.0.1:7700") from error
    return address


def _closed() -> PermanentError:
    return PermanentError("the client is closed", remedy="make a new one", reason="closed")


def _anchor(item_id: str | None, content: Content | None) -> wire.Anchor:
    if (item_id is None) == (content is None):
        raise InvalidRequest("is not one thing", field="anchor", remedy="give exactly one of item_id and content")
    return _item_anchor(item_id, "item_id") if content is None else _content_anchor(content, "content")


def _item_anchor(item_id: str | None, argument: str) -> wire.Anchor:
    _require(item_id, str, argument)
    with _writing(argument):
        return wire.Anchor(item_id=item_id)


def _content_anchor(content: Content, argument: str) -> wire.Anchor:
    checked = _typed(content, Content, argument)
    with _writing(argument):
        return wire.Anchor(content=_content(checked))


def _request(
    anchor: wire.Anchor,
    k: int | None,
    conditions: ItemFilter | None,
    retrieval: Retrieval,
    ranking: Ranking | None,
    *,
    explain: bool,
    surface: str,
    no_exploration: bool,
    popular_if_unknown: bool,
    request_id: str = "",
    pinned_ids: Sequence[str] = (),
) -> wire.FindSimilarRequest:
    if k is not None:
        _require(k, int, "k")
        if not -(2**31) <= k < 2**31:
            raise _wrong("k", "it is no number of neighbours", "give one of 32 bits")
    try:
        searches = _RETRIEVALS[Retrieval(retrieval)]
    except ValueError as error:
        raise _wrong("retrieval", f"it is {retrieval!r}", f"give one of {', '.join(Retrieval)}") from error
    try:
        order = _RANKINGS[None if ranking is None else Ranking(ranking)]
    except ValueError as error:
        raise _wrong("ranking", f"it is {ranking!r}", f"give one of {', '.join(Ranking)}") from error
    flags = {"explain": explain, "no_exploration": no_exploration, "popular_if_unknown": popular_if_unknown}
    for name, flag in flags.items():
        _require(flag, bool, name)
    request = wire.FindSimilarRequest(
        anchor=anchor,
        k=k,
        retrieval=searches,
        ranking=order,
        explain=explain,
        no_exploration=no_exploration,
        popular_if_unknown=popular_if_unknown,
    )
    # gRPC sends a call again by itself: without an id of ours it would be another look-up, drawn and logged anew.
    for name, text in (("request_id", request_id or uuid4().hex), ("surface", surface)):
        _require(text, str, name)
        with _writing(name):
            setattr(request, name, text)
    pinned = _listed_ids(pinned_ids, "pinned_ids")
    with _writing("pinned_ids"):
        request.pinned_ids.extend(pinned)
    if conditions is not None:
        checked = _typed(conditions, ItemFilter, "filter")
        with _writing("filter"):
            request.filter.CopyFrom(_filter(checked))
    return request


def _batch(
    anchors: Sequence[str | Content],
    k: int | None,
    conditions: ItemFilter | None,
    retrieval: Retrieval,
    ranking: Ranking | None,
    **options: Any,
) -> wire.FindSimilarBatchRequest:
    return wire.FindSimilarBatchRequest(
        requests=[
            _request(
                _content_anchor(anchor, f"anchors[{place}]")
                if isinstance(anchor, Content)
                else _item_anchor(anchor, f"anchors[{place}]"),
                k,
                conditions,
                retrieval,
                ranking,
                **options,
            )
            for place, anchor in enumerate(_several(anchors, "anchors"))
        ]
    )


def _ids(ids: Sequence[str]) -> wire.GetItemsRequest:
    listed = _listed_ids(ids, "ids")
    with _writing("ids"):
        return wire.GetItemsRequest(item_ids=listed)


def _listed_ids(ids: Sequence[str], argument: str) -> list[str]:
    listed = _several(ids, argument)
    for place, one in enumerate(listed):
        _require(one, str, f"{argument}[{place}]")
    return listed


def _require(value: object, kind: type, argument: str) -> None:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        problem = f"it is of the type {type(value).__name__}, and must be of the type {kind.__name__}"
        raise _wrong(argument, problem, "give that type")


def _several(values: Iterable[_T], argument: str) -> list[_T]:
    """A text is several texts too, of one letter each: nobody means those."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise _wrong(argument, f"it is of the type {type(values).__name__}, and must be a list", "put it in a list")
    return list(values)


def _require_seconds(timeout_s: float) -> None:
    # Beyond a billion seconds gRPC's own arithmetic overflows, and a deadline is over at once.
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not abs(timeout_s) < 1e9:
        raise _wrong("timeout_s", f"{timeout_s!r} is no time", "give a number of seconds")


def _typed(value: _T, kind: type[_T], argument: str) -> _T:
    """The value, each part of the type that it is declared with: a text for a tuple of texts would be its letters."""
    _require(value, kind, argument)
    try:
        return msgspec.convert(_parts(value), kind, from_attributes=True)
    except msgspec.ValidationError as error:
        message = str(error)
        problem = wrong_type(message) if "Expected" in message else "it is none of the values that it may have"
        raise _wrong(f"{argument}.{field_of(message)}", problem, "give one of its type") from error


def _parts(value: Any) -> dict[str, Any]:
    """Its fields: conversion takes an object that is of its kind already as it is."""
    parts = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: _parts(part) if is_dataclass(part) else part for name, part in parts.items()}


@contextmanager
def _writing(argument: str) -> Iterator[None]:
    try:
        yield
    except UnicodeEncodeError as error:
        raise _wrong(argument, "a text holds a lone surrogate", "give text without") from error


def _wrong(argument: str, problem: str, remedy: str) -> InvalidRequest:
    return InvalidRequest(problem, field=argument, remedy=remedy, reason="argument")


def _content(content: Content) -> wire.Content:
    """What encoders read of a content; its numbers, pictures and status have no part in a look-up."""
    return wire.Content(
        title=content.title,
        description=content.description,
        language=content.language,
        categories=_paths(content.categories),
        tags=content.tags,
        attributes=dict(content.attributes),
        maker=content.maker,
    )


def _filter(conditions: ItemFilter) -> wire.Filter:
    price = conditions.price
    return wire.Filter(
        categories_any=_paths(conditions.categories_any),
        categories_all=_paths(conditions.categories_all),
        category_prefix=wire.CategoryPath(names=conditions.category_prefix) if conditions.category_prefix else None,
        tags_any=conditions.tags_any,
        tags_all=conditions.tags_all,
        attributes=dict(conditions.attributes),
        price=None if price is None else wire.PriceRange(currency=price.currency, low=price.low, high=price.high),
        availability=conditions.availability,
        market=conditions.market,
        exclude_ids=conditions.exclude_ids,
    )


def _paths(paths: Sequence[CategoryPath]) -> list[wire.CategoryPath]:
    return [wire.CategoryPath(names=path) for path in paths]


def _similar(response: wire.FindSimilarResponse) -> SimilarItems:
    names = response.feature_names
    return SimilarItems(
        neighbours=tuple(
            Neighbour(
                one.item_id,
                one.score,
                one.title,
                tuple(Source(source.name, source.score, source.rank) for source in one.sources),
                one.propensity,
                dict(zip(names, one.features, strict=False)),
                dict(zip(names, one.contributions, strict=False)),
            )
            for one in response.neighbours
        ),
        collection=response.collection,
        bundle=response.bundle,
        request_id=response.request_id,
        degraded=tuple(response.degraded),
        ranking=response.ranking,
        # "from" is a word of Python's.
        moved=tuple(
            Moved(one.item_id, one.by, getattr(one, "from"), one.to or None, one.because_of) for one in response.moved
        ),
        draw=response.draw,
    )


def _similar_many(response: wire.FindSimilarBatchResponse) -> list[SimilarItems | NearkinError]:
    return [
        _failure(_CODES.get(one.failure.code, grpc.StatusCode.UNKNOWN), one.failure.message)
        if one.HasField("failure")
        else _similar(one.response)
        for one in response.results
    ]


def _items(response: wire.GetItemsResponse) -> list[ItemRecord]:
    return [
        ItemRecord(
            id=one.item_id,
            status=_STATUSES.get(one.status, ItemStatus.UNKNOWN),
            content_version=one.content_version if one.HasField("content_version") else None,
            offer_version=one.offer_version if one.HasField("offer_version") else None,
            deleted_version=one.deleted_version if one.HasField("deleted_version") else None,
            title=one.title,
            indexed_at_ms=one.indexed_at_ms,
            bundle=response.bundle,
        )
        for one in response.items
    ]


_CODES = {code.value[0]: code for code in grpc.StatusCode}


def _failure(code: grpc.StatusCode, message: str, timeout_s: float | None = None) -> NearkinError:
    """The error of the family that a status stands for; its message is "<field>: <problem>; <remedy>"."""
    match code:
        case grpc.StatusCode.INVALID_ARGUMENT:
            return _permanent(InvalidRequest, message)
        case grpc.StatusCode.NOT_FOUND:
            return _permanent(UnknownItem, message)
        case grpc.StatusCode.FAILED_PRECONDITION:
            return _permanent(Misconfigured, message)
        case grpc.StatusCode.RESOURCE_EXHAUSTED if message.startswith("request: "):
            return _permanent(InvalidRequest, message)
        case grpc.StatusCode.RESOURCE_EXHAUSTED if "larger than max" in message:
            # gRPC itself refuses a message far beyond the limit, in its own words.
            return InvalidRequest(message, field="request", remedy="send a smaller one")
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Overloaded(message)
        case grpc.StatusCode.CANCELLED:
            # Not by the caller: gRPC refuses calls so that nobody of the server took yet, when too many wait for that.
            return Overloaded(f"the server did not take the call, as too many wait; try again later ({message})")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            within = "in time" if timeout_s is None else f"within {timeout_s:g} s"
            return DeadlineExceeded(f"no answer {within}; set a larger timeout_s, or ask for less ({message})")
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            problem, _, remedy = message.partition("; ")
            return Misconfigured(
                problem, field="token", remedy=remedy or "ask the service's operator", reason=code.name.lower()
            )
        case grpc.StatusCode.UNIMPLEMENTED:
            return Misconfigured(
                f"the service there does not answer look-ups ({message})",
                field="address",
                remedy="give the address of a Nearkin look-up service of this version",
            )
        case _:
            return Unavailable("look-up service", message or code.name)


def _permanent(kind: type[PermanentError], message: str) -> PermanentError:
    field, found, rest = message.partition(": ")
    problem, also_found, remedy = rest.rpartition("; ")
    if not (found and also_found):
        return kind(message, remedy="see the look-up service's log")
    return kind(problem, field=field, remedy=remedy)
