from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Ranking(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RANKING_UNSPECIFIED: _ClassVar[Ranking]
    RANKING_COMBINED: _ClassVar[Ranking]
    RANKING_CONTENT: _ClassVar[Ranking]
    RANKING_EVIDENCE: _ClassVar[Ranking]

class Retrieval(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RETRIEVAL_UNSPECIFIED: _ClassVar[Retrieval]
    RETRIEVAL_FUSED: _ClassVar[Retrieval]
    RETRIEVAL_DENSE: _ClassVar[Retrieval]
    RETRIEVAL_LEXICAL: _ClassVar[Retrieval]

class ItemStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ITEM_STATUS_UNSPECIFIED: _ClassVar[ItemStatus]
    ITEM_STATUS_UNKNOWN: _ClassVar[ItemStatus]
    ITEM_STATUS_VISIBLE: _ClassVar[ItemStatus]
    ITEM_STATUS_HIDDEN: _ClassVar[ItemStatus]
    ITEM_STATUS_DELETED: _ClassVar[ItemStatus]
    ITEM_STATUS_PENDING: _ClassVar[ItemStatus]
RANKING_UNSPECIFIED: Ranking
RANKING_COMBINED: Ranking
RANKING_CONTENT: Ranking
RANKING_EVIDENCE: Ranking
RETRIEVAL_UNSPECIFIED: Retrieval
RETRIEVAL_FUSED: Retrieval
RETRIEVAL_DENSE: Retrieval
RETRIEVAL_LEXICAL: Retrieval
ITEM_STATUS_UNSPECIFIED: ItemStatus
ITEM_STATUS_UNKNOWN: ItemStatus
ITEM_STATUS_VISIBLE: ItemStatus
ITEM_STATUS_HIDDEN: ItemStatus
ITEM_STATUS_DELETED: ItemStatus
ITEM_STATUS_PENDING: ItemStatus

class Anchor(_message.Message):
    __slots__ = ("item_id", "content")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    content: Content
    def __init__(self, item_id: _Optional[str] = ..., content: _Optional[_Union[Content, _Mapping]] = ...) -> None: ...

class CategoryPath(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class Content(_message.Message):
    __slots__ = ("title", "description", "language", "categories", "tags", "attributes", "maker")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TITLE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    MAKER_FIELD_NUMBER: _ClassVar[int]
    title: str
    description: str
    language: str
    categories: _containers.RepeatedCompositeFieldContainer[CategoryPath]
    tags: _containers.RepeatedScalarFieldContainer[str]
    attributes: _containers.ScalarMap[str, str]
    maker: str
    def __init__(self, title: _Optional[str] = ..., description: _Optional[str] = ..., language: _Optional[str] = ..., categories: _Optional[_Iterable[_Union[CategoryPath, _Mapping]]] = ..., tags: _Optional[_Iterable[str]] = ..., attributes: _Optional[_Mapping[str, str]] = ..., maker: _Optional[str] = ...) -> None: ...

class PriceRange(_message.Message):
    __slots__ = ("currency", "low", "high")
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    currency: str
    low: float
    high: float
    def __init__(self, currency: _Optional[str] = ..., low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("categories_any", "categories_all", "category_prefix", "tags_any", "tags_all", "attributes", "price", "availability", "market", "exclude_ids")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CATEGORIES_ANY_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_ALL_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_PREFIX_FIELD_NUMBER: _ClassVar[int]
    TAGS_ANY_FIELD_NUMBER: _ClassVar[int]
    TAGS_ALL_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    AVAILABILITY_FIELD_NUMBER: _ClassVar[int]
    MARKET_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_IDS_FIELD_NUMBER: _ClassVar[int]
    categories_any: _containers.RepeatedCompositeFieldContainer[CategoryPath]
    categories_all: _containers.RepeatedCompositeFieldContainer[CategoryPath]
    category_prefix: CategoryPath
    tags_any: _containers.RepeatedScalarFieldContainer[str]
    tags_all: _containers.RepeatedScalarFieldContainer[str]
    attributes: _containers.ScalarMap[str, str]
    price: PriceRange
    availability: _containers.RepeatedScalarFieldContainer[str]
    market: str
    exclude_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, categories_any: _Optional[_Iterable[_Union[CategoryPath, _Mapping]]] = ..., categories_all: _Optional[_Iterable[_Union[CategoryPath, _Mapping]]] = ..., category_prefix: _Optional[_Union[CategoryPath, _Mapping]] = ..., tags_any: _Optional[_Iterable[str]] = ..., tags_all: _Optional[_Iterable[str]] = ..., attributes: _Optional[_Mapping[str, str]] = ..., price: _Optional[_Union[PriceRange, _Mapping]] = ..., availability: _Optional[_Iterable[str]] = ..., market: _Optional[str] = ..., exclude_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class FindSimilarRequest(_message.Message):
    __slots__ = ("anchor", "k", "filter", "retrieval", "explain", "ranking", "request_id", "surface", "no_exploration", "pinned_ids", "popular_if_unknown")
    ANCHOR_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    RETRIEVAL_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    RANKING_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SURFACE_FIELD_NUMBER: _ClassVar[int]
    NO_EXPLORATION_FIELD_NUMBER: _ClassVar[int]
    PINNED_IDS_FIELD_NUMBER: _ClassVar[int]
    POPULAR_IF_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    anchor: Anchor
    k: int
    filter: Filter
    retrieval: Retrieval
    explain: bool
    ranking: Ranking
    request_id: str
    surface: str
    no_exploration: bool
    pinned_ids: _containers.RepeatedScalarFieldContainer[str]
    popular_if_unknown: bool
    def __init__(self, anchor: _Optional[_Union[Anchor, _Mapping]] = ..., k: _Optional[int] = ..., filter: _Optional[_Union[Filter, _Mapping]] = ..., retrieval: _Optional[_Union[Retrieval, str]] = ..., explain: _Optional[bool] = ..., ranking: _Optional[_Union[Ranking, str]] = ..., request_id: _Optional[str] = ..., surface: _Optional[str] = ..., no_exploration: _Optional[bool] = ..., pinned_ids: _Optional[_Iterable[str]] = ..., popular_if_unknown: _Optional[bool] = ...) -> None: ...

class Source(_message.Message):
    __slots__ = ("name", "score", "rank")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    name: str
    score: float
    rank: int
    def __init__(self, name: _Optional[str] = ..., score: _Optional[float] = ..., rank: _Optional[int] = ...) -> None: ...

class Neighbour(_message.Message):
    __slots__ = ("item_id", "score", "title", "sources", "propensity", "features", "contributions")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    score: float
    title: str
    sources: _containers.RepeatedCompositeFieldContainer[Source]
    propensity: float
    features: _containers.RepeatedScalarFieldContainer[float]
    contributions: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, item_id: _Optional[str] = ..., score: _Optional[float] = ..., title: _Optional[str] = ..., sources: _Optional[_Iterable[_Union[Source, _Mapping]]] = ..., propensity: _Optional[float] = ..., features: _Optional[_Iterable[float]] = ..., contributions: _Optional[_Iterable[float]] = ...) -> None: ...

class Moved(_message.Message):
    __slots__ = ("item_id", "by", "to", "because_of")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    BECAUSE_OF_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    by: str
    to: int
    because_of: str
    def __init__(self, item_id: _Optional[str] = ..., by: _Optional[str] = ..., to: _Optional[int] = ..., because_of: _Optional[str] = ..., **kwargs) -> None: ...

class FindSimilarResponse(_message.Message):
    __slots__ = ("neighbours", "collection", "bundle", "request_id", "degraded", "ranking", "feature_names", "moved", "draw")
    NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    RANKING_FIELD_NUMBER: _ClassVar[int]
    FEATURE_NAMES_FIELD_NUMBER: _ClassVar[int]
    MOVED_FIELD_NUMBER: _ClassVar[int]
    DRAW_FIELD_NUMBER: _ClassVar[int]
    neighbours: _containers.RepeatedCompositeFieldContainer[Neighbour]
    collection: str
    bundle: str
    request_id: str
    degraded: _containers.RepeatedScalarFieldContainer[str]
    ranking: str
    feature_names: _containers.RepeatedScalarFieldContainer[str]
    moved: _containers.RepeatedCompositeFieldContainer[Moved]
    draw: str
    def __init__(self, neighbours: _Optional[_Iterable[_Union[Neighbour, _Mapping]]] = ..., collection: _Optional[str] = ..., bundle: _Optional[str] = ..., request_id: _Optional[str] = ..., degraded: _Optional[_Iterable[str]] = ..., ranking: _Optional[str] = ..., feature_names: _Optional[_Iterable[str]] = ..., moved: _Optional[_Iterable[_Union[Moved, _Mapping]]] = ..., draw: _Optional[str] = ...) -> None: ...

class FindSimilarBatchRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[FindSimilarRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[FindSimilarRequest, _Mapping]]] = ...) -> None: ...

class FindSimilarResult(_message.Message):
    __slots__ = ("response", "failure")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    response: FindSimilarResponse
    failure: Failure
    def __init__(self, response: _Optional[_Union[FindSimilarResponse, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class FindSimilarBatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[FindSimilarResult]
    def __init__(self, results: _Optional[_Iterable[_Union[FindSimilarResult, _Mapping]]] = ...) -> None: ...

class GetItemsRequest(_message.Message):
    __slots__ = ("item_ids",)
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, item_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class IndexedItem(_message.Message):
    __slots__ = ("item_id", "status", "content_version", "offer_version", "deleted_version", "title", "indexed_at_ms")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    OFFER_VERSION_FIELD_NUMBER: _ClassVar[int]
    DELETED_VERSION_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    INDEXED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    status: ItemStatus
    content_version: int
    offer_version: int
    deleted_version: int
    title: str
    indexed_at_ms: int
    def __init__(self, item_id: _Optional[str] = ..., status: _Optional[_Union[ItemStatus, str]] = ..., content_version: _Optional[int] = ..., offer_version: _Optional[int] = ..., deleted_version: _Optional[int] = ..., title: _Optional[str] = ..., indexed_at_ms: _Optional[int] = ...) -> None: ...

class GetItemsResponse(_message.Message):
    __slots__ = ("items", "collection", "bundle")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[IndexedItem]
    collection: str
    bundle: str
    def __init__(self, items: _Optional[_Iterable[_Union[IndexedItem, _Mapping]]] = ..., collection: _Optional[str] = ..., bundle: _Optional[str] = ...) -> None: ...
