"""Requests as core types: every field out of its bounds is refused, with its name and what would be right.

A content has the limits of the item contract; what a look-up adds has its limits here.
"""

import math
import re
from collections.abc import Mapping, Sequence

from nearkin.contracts import limits
from nearkin.contracts.v1 import lookup_pb2 as wire
from nearkin.core.errors import InvalidRequest
from nearkin.core.filters import ItemFilter, PriceRange
from nearkin.core.item import Availability, CategoryPath, Content
from nearkin.core.retrieval import Ranking, Retrieval
from nearkin.lookup.request import DEFAULT_K, SimilarTo

#: How many neighbours a look-up may ask for.
MAX_K = 200
#: How many look-ups one batch may hold.
MAX_LOOKUPS = 100
#: How many items one call may read.
MAX_ITEMS = 1_000
#: How many values one condition of a filter may name.
MAX_CONDITION_VALUES = 100
#: How many items a filter may exclude.
MAX_EXCLUDED = 1_000

_ID = re.compile(limits.ID_PATTERN)
_NAME = re.compile(limits.NAME_PATTERN)
_MARKET = re.compile(limits.MARKET_PATTERN)
_CURRENCY = re.compile(limits.CURRENCY_PATTERN)
_LANGUAGE = re.compile(limits.LANGUAGE_PATTERN)
_FORMS = {
    _ID: "leave out control characters, and give more than blanks",
    _NAME: 'leave out control characters and "="',
    _MARKET: 'leave out control characters and "*"',
    _LANGUAGE: "give a BCP 47 tag, such as en or pt-BR",
}
_AVAILABILITIES = {one.value: one for one in Availability}
_RETRIEVALS = {
    wire.RETRIEVAL_UNSPECIFIED: Retrieval.FUSED,
    wire.RETRIEVAL_FUSED: Retrieval.FUSED,
    wire.RETRIEVAL_DENSE: Retrieval.DENSE,
    wire.RETRIEVAL_LEXICAL: Retrieval.LEXICAL,
}
_RANKINGS = {
    wire.RANKING_UNSPECIFIED: Ranking.COMBINED,
    wire.RANKING_COMBINED: Ranking.COMBINED,
    wire.RANKING_CONTENT: Ranking.CONTENT,
    wire.RANKING_EVIDENCE: Ranking.EVIDENCE,
}


def parse_lookup(request: wire.FindSimilarRequest) -> SimilarTo:
    """One look-up.

    Raises:
        InvalidRequest: a field is out of its bounds.
    """
    k = request.k if request.HasField("k") else DEFAULT_K
    if not 1 <= k <= MAX_K:
        raise _refused("k", f"is {k}", f"ask for 1 to {MAX_K} neighbours")
    retrieval = _RETRIEVALS.get(request.retrieval)
    if retrieval is None:
        raise _refused("retrieval", f"{request.retrieval} is not a retrieval", "use fused, dense or lexical")
    ranking = _RANKINGS.get(request.ranking)
    if ranking is None:
        raise _refused("ranking", f"{request.ranking} is not a ranking", "use combined, content or evidence")
    if retrieval is not Retrieval.FUSED and request.ranking:
        raise _refused("ranking", "one search alone keeps its own order", "leave it out, or ask for fused retrieval")
    anchor = _anchor(request.anchor)
    return SimilarTo(
        anchor,
        k,
        _filter(request.filter),
        retrieval,
        ranking,
        request_id=_name("request_id", request.request_id, limits.MAX_REQUEST_ID),
        surface=_name("surface", request.surface, limits.MAX_SURFACE),
        explore=not request.no_exploration,
        pinned=_pinned(request.pinned_ids, anchor, k),
        popular_if_unknown=request.popular_if_unknown,
    )


def check_batch(request: wire.FindSimilarBatchRequest) -> None:
    """Refuse a batch with no look-up or too many.

    Raises:
        InvalidRequest: it has.
    """
    _bounded("requests", request.requests, MAX_LOOKUPS, at_least=1)


def parse_ids(request: wire.GetItemsRequest) -> list[str]:
    """The ids of items to read, in order.

    Raises:
        InvalidRequest: there are none or too many, or one is no item's id.
    """
    _bounded("item_ids", request.item_ids, MAX_ITEMS, at_least=1)
    return [_item_id(f"item_ids[{place}]", item_id) for place, item_id in enumerate(request.item_ids)]


def _anchor(anchor: wire.Anchor) -> str | Content:
    match anchor.WhichOneof("anchor"):
        case "item_id":
            return _item_id("anchor.item_id", anchor.item_id)
        case "content":
            return _content(anchor.content)
        case _:
            raise _refused("anchor", "is missing", "set item_id to an item of the index, or content to a new item's")


def _pinned(item_ids: Sequence[str], anchor: str | Content, k: int) -> tuple[str, ...]:
    if len(item_ids) > k:
        raise _refused("pinned_ids", f"has {len(item_ids)} entries", f"give at most k, which is {k}")
    pinned = tuple(_item_id(f"pinned_ids[{place}]", item_id) for place, item_id in enumerate(item_ids))
    for place, item_id in enumerate(pinned):
        if item_id in pinned[:place]:
            raise _refused(f"pinned_ids[{place}]", f"{_shown(item_id)} is pinned already", "pin every item once")
        if item_id == anchor:
            raise _refused(f"pinned_ids[{place}]", "is the anchor", "pin other items")
    return pinned


def _name(field: str, given: str, longest: int) -> str:
    """A name that may be left out."""
    return _shaped(field, _text(field, given, longest), _ID) if given else ""


def _content(content: wire.Content) -> Content:
    at = "anchor.content"
    return Content(
        title=_text(f"{at}.title", content.title, limits.MAX_TITLE),
        description=_text(f"{at}.description", content.description, limits.MAX_DESCRIPTION),
        language=_shaped(f"{at}.language", _text(f"{at}.language", content.language, limits.MAX_LANGUAGE), _LANGUAGE),
        categories=_paths(f"{at}.categories", content.categories, limits.MAX_CATEGORIES),
        tags=_words(f"{at}.tags", content.tags, limits.MAX_TAGS, limits.MAX_TAG),
        attributes=_attributes(f"{at}.attributes", content.attributes, limits.MAX_ATTRIBUTES),
        maker=_text(f"{at}.maker", content.maker, limits.MAX_MAKER),
    )


def _filter(given: wire.Filter) -> ItemFilter:
    most = MAX_CONDITION_VALUES
    prefix: CategoryPath = ()
    if given.HasField("category_prefix"):
        prefix = _path("filter.category_prefix", given.category_prefix)
    _bounded("filter.exclude_ids", given.exclude_ids, MAX_EXCLUDED)
    return ItemFilter(
        categories_any=_paths("filter.categories_any", given.categories_any, most),
        categories_all=_paths("filter.categories_all", given.categories_all, most),
        category_prefix=prefix,
        tags_any=_words("filter.tags_any", given.tags_any, most, limits.MAX_TAG),
        tags_all=_words("filter.tags_all", given.tags_all, most, limits.MAX_TAG),
        attributes=tuple(_attributes("filter.attributes", given.attributes, most).items()),
        price=_price(given.price) if given.HasField("price") else None,
        availability=_availability(given.availability),
        market=_shaped("filter.market", _text("filter.market", given.market, limits.MAX_MARKET), _MARKET),
        exclude_ids=tuple(
            _item_id(f"filter.exclude_ids[{place}]", item_id) for place, item_id in enumerate(given.exclude_ids)
        ),
    )


def _price(given: wire.PriceRange) -> PriceRange:
    low = given.low if given.HasField("low") else None
    high = given.high if given.HasField("high") else None
    if not _CURRENCY.match(given.currency):
        problem = f"{_shown(given.currency)} is not a currency's code" if given.currency else "is missing"
        raise _refused("filter.price.currency", problem, "give its three capital letters of ISO 4217, such as EUR")
    for name, bound in (("low", low), ("high", high)):
        if bound is not None and not (math.isfinite(bound) and bound >= 0):
            raise _refused(f"filter.price.{name}", f"is {bound}", "give a finite number from 0, or leave it out")
    if low is not None and high is not None and low > high:
        raise _refused("filter.price.low", f"{low} is above high, which is {high}", "swap them, or leave one out")
    return PriceRange(given.currency, low, high)


def _availability(given: Sequence[str]) -> tuple[Availability, ...]:
    _bounded("filter.availability", given, len(Availability))
    for place, name in enumerate(given):
        if name not in _AVAILABILITIES:
            remedy = f"use {', '.join(_AVAILABILITIES)}"
            raise _refused(f"filter.availability[{place}]", f"{_shown(name)} is not an availability", remedy)
    return tuple(_AVAILABILITIES[name] for name in given)


def _paths(field: str, paths: Sequence[wire.CategoryPath], most: int) -> tuple[CategoryPath, ...]:
    _bounded(field, paths, most)
    return tuple(_path(f"{field}[{place}]", path) for place, path in enumerate(paths))


def _path(field: str, path: wire.CategoryPath) -> CategoryPath:
    return _words(f"{field}.names", path.names, limits.MAX_CATEGORY_LEVELS, limits.MAX_CATEGORY_NAME, 1)


def _attributes(field: str, attributes: Mapping[str, str], most: int) -> dict[str, str]:
    if len(attributes) > most:
        raise _refused(field, f"has {len(attributes)} entries", f"give at most {most}")
    for name in attributes:
        _shaped(f"{field} (a name)", _text(f"{field} (a name)", name, limits.MAX_NAME, at_least=1), _NAME)
    return {
        name: _text(f"{field}[{_shown(name)}]", attributes[name], limits.MAX_ATTRIBUTE_VALUE)
        for name in sorted(attributes)
    }


def _words(field: str, words: Sequence[str], most: int, longest: int, at_least: int = 0) -> tuple[str, ...]:
    _bounded(field, words, most, at_least)
    return tuple(_text(f"{field}[{place}]", word, longest, at_least=1) for place, word in enumerate(words))


def _item_id(field: str, item_id: str) -> str:
    return _shaped(field, _text(field, item_id, limits.MAX_ID, at_least=1), _ID)


def _text(field: str, text: str, longest: int, at_least: int = 0) -> str:
    if len(text) < at_least:
        raise _refused(field, "is empty", f"give 1 to {longest} characters")
    if len(text) > longest:
        raise _refused(field, f"has {len(text)} characters", f"give at most {longest}")
    return text


def _shaped(field: str, text: str, pattern: re.Pattern[str]) -> str:
    if not pattern.match(text):
        raise _refused(field, f"{_shown(text)} is not of the form that the item contract asks for", _FORMS[pattern])
    return text


def _bounded(field: str, values: Sequence[object], most: int, at_least: int = 0) -> None:
    if len(values) < at_least:
        raise _refused(field, "is empty", f"give 1 to {most}")
    if len(values) > most:
        raise _refused(field, f"has {len(values)} entries", f"give at most {most}")


def _shown(text: str) -> str:
    """The client's own word, short enough for a status message."""
    return repr(text if len(text) <= 40 else text[:40] + "…")


def _refused(field: str, problem: str, remedy: str) -> InvalidRequest:
    return InvalidRequest(problem, field=field, remedy=remedy)
