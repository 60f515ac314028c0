import math

import pytest

from nearkin.contracts import limits
from nearkin.contracts.v1 import lookup_pb2 as wire
from nearkin.core.errors import InvalidRequest
from nearkin.core.filters import ItemFilter, PriceRange
from nearkin.core.item import Availability, Content
from nearkin.core.retrieval import Retrieval
from nearkin.lookup.find_similar import SimilarTo
from nearkin.lookup.parse_request import (
    MAX_CONDITION_VALUES,
    MAX_EXCLUDED,
    MAX_ITEMS,
    MAX_K,
    MAX_LOOKUPS,
    check_batch,
    parse_ids,
    parse_lookup,
)


def lookup(**fields: object) -> wire.FindSimilarRequest:
    return wire.FindSimilarRequest(**{"anchor": wire.Anchor(item_id="a"), **fields})


def content(**fields: object) -> wire.FindSimilarRequest:
    return wire.FindSimilarRequest(anchor=wire.Anchor(content=wire.Content(**fields)))


def filtered(**fields: object) -> wire.FindSimilarRequest:
    return lookup(filter=wire.Filter(**fields))


def path(*names: str) -> wire.CategoryPath:
    return wire.CategoryPath(names=names)


def test_a_look_up_that_says_only_its_anchor_has_the_documented_defaults():
    assert parse_lookup(lookup()) == SimilarTo("a", 10, ItemFilter(), Retrieval.FUSED)


def test_every_field_of_a_look_up_arrives():
    asked = lookup(
        k=200,
        retrieval=wire.RETRIEVAL_LEXICAL,
        filter=wire.Filter(
            categories_any=[path("home", "mugs")],
            categories_all=[path("home"), path("gifts")],
            category_prefix=path("home"),
            tags_any=["red"],
            tags_all=["new", "sale"],
            attributes={"size": "L", "colour": "red"},
            price=wire.PriceRange(currency="EUR", low=0, high=9.5),
            availability=["in_stock", "preorder"],
            market="DE",
            exclude_ids=["b", "c"],
        ),
    )
    assert parse_lookup(asked) == SimilarTo(
        "a",
        200,
        ItemFilter(
            categories_any=(("home", "mugs"),),
            categories_all=(("home",), ("gifts",)),
            category_prefix=("home",),
            tags_any=("red",),
            tags_all=("new", "sale"),
            attributes=(("colour", "red"), ("size", "L")),
            price=PriceRange("EUR", 0, 9.5),
            availability=(Availability.IN_STOCK, Availability.PREORDER),
            market="DE",
            exclude_ids=("b", "c"),
        ),
        Retrieval.LEXICAL,
    )


def test_every_field_of_a_content_arrives():
    asked = content(
        title="Mug",
        description="Red",
        language="en-GB",
        categories=[path("home", "mugs")],
        tags=["red"],
        attributes={"size": "L"},
        maker="Potter",
    )
    assert parse_lookup(asked).anchor == Content(
        title="Mug",
        description="Red",
        language="en-GB",
        categories=(("home", "mugs"),),
        tags=("red",),
        attributes={"size": "L"},
        maker="Potter",
    )


def test_a_price_range_may_be_open_at_both_ends():
    parsed = parse_lookup(filtered(price=wire.PriceRange(currency="EUR")))
    assert parsed.filter.price == PriceRange("EUR", None, None)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (wire.FindSimilarRequest(), "anchor"),
        (wire.FindSimilarRequest(anchor=wire.Anchor()), "anchor"),
        (wire.FindSimilarRequest(anchor=wire.Anchor(item_id="")), "anchor.item_id"),
        (wire.FindSimilarRequest(anchor=wire.Anchor(item_id="a" * (limits.MAX_ID + 1))), "anchor.item_id"),
        (wire.FindSimilarRequest(anchor=wire.Anchor(item_id="a\nb")), "anchor.item_id"),
        (wire.FindSimilarRequest(anchor=wire.Anchor(item_id="  ")), "anchor.item_id"),
        (lookup(k=0), "k"),
        (lookup(k=-1), "k"),
        (lookup(k=MAX_K + 1), "k"),
        (lookup(k=10_000), "k"),
        (lookup(retrieval=17), "retrieval"),
        (content(title="x" * (limits.MAX_TITLE + 1)), "anchor.content.title"),
        (content(description="x" * (limits.MAX_DESCRIPTION + 1)), "anchor.content.description"),
        (content(language="not a tag"), "anchor.content.language"),
        (content(language="x" * (limits.MAX_LANGUAGE + 1)), "anchor.content.language"),
        (content(maker="x" * (limits.MAX_MAKER + 1)), "anchor.content.maker"),
        (content(tags=["t"] * (limits.MAX_TAGS + 1)), "anchor.content.tags"),
        (content(tags=["ok", "t" * (limits.MAX_TAG + 1)]), "anchor.content.tags[1]"),
        (content(categories=[path("a")] * (limits.MAX_CATEGORIES + 1)), "anchor.content.categories"),
        (content(categories=[path()]), "anchor.content.categories[0].names"),
        (
            content(categories=[path(*"a" * (limits.MAX_CATEGORY_LEVELS + 1))]),
            "anchor.content.categories[0].names",
        ),
        (content(attributes={"": "x"}), "anchor.content.attributes (a name)"),
        (content(attributes={"a=b": "x"}), "anchor.content.attributes (a name)"),
        (content(attributes={"a": "x" * (limits.MAX_ATTRIBUTE_VALUE + 1)}), "anchor.content.attributes['a']"),
        (content(attributes={f"{n}": "x" for n in range(limits.MAX_ATTRIBUTES + 1)}), "anchor.content.attributes"),
        (filtered(categories_any=[path("a", "")]), "filter.categories_any[0].names[1]"),
        (filtered(categories_all=[path("a"), path()]), "filter.categories_all[1].names"),
        (filtered(category_prefix=path()), "filter.category_prefix.names"),
        (filtered(category_prefix=path("")), "filter.category_prefix.names[0]"),
        (filtered(tags_any=[""]), "filter.tags_any[0]"),
        (filtered(tags_all=["t"] * (MAX_CONDITION_VALUES + 1)), "filter.tags_all"),
        (filtered(attributes={"": "x"}), "filter.attributes (a name)"),
        (filtered(price=wire.PriceRange(low=1)), "filter.price.currency"),
        (filtered(price=wire.PriceRange(currency="eur", low=1)), "filter.price.currency"),
        (filtered(price=wire.PriceRange(currency="EUR", low=2, high=1)), "filter.price.low"),
        (filtered(price=wire.PriceRange(currency="EUR", low=-1)), "filter.price.low"),
        (filtered(price=wire.PriceRange(currency="EUR", low=math.nan)), "filter.price.low"),
        (filtered(price=wire.PriceRange(currency="EUR", high=math.inf)), "filter.price.high"),
        (filtered(availability=["in_stock", "sold"]), "filter.availability[1]"),
        (filtered(availability=["in_stock"] * 5), "filter.availability"),
        (filtered(market="*"), "filter.market"),
        (filtered(market="m" * (limits.MAX_MARKET + 1)), "filter.market"),
        (filtered(exclude_ids=["a", ""]), "filter.exclude_ids[1]"),
        (filtered(exclude_ids=["a"] * (MAX_EXCLUDED + 1)), "filter.exclude_ids"),
    ],
)
def test_a_field_out_of_its_bounds_is_refused_by_name_and_with_a_remedy(request_: wire.FindSimilarRequest, field: str):
    with pytest.raises(InvalidRequest) as refusal:
        parse_lookup(request_)
    assert refusal.value.field == field
    assert refusal.value.remedy
    assert len(str(refusal.value)) < 1_000


@pytest.mark.parametrize(
    "request_",
    [
        lookup(k=1),
        lookup(k=MAX_K),
        content(title="x" * limits.MAX_TITLE, description="x" * limits.MAX_DESCRIPTION),
        content(categories=[path(*"a" * limits.MAX_CATEGORY_LEVELS)] * limits.MAX_CATEGORIES),
        content(tags=["t" * limits.MAX_TAG] * limits.MAX_TAGS),
        filtered(exclude_ids=["x" * limits.MAX_ID] * MAX_EXCLUDED),
        filtered(price=wire.PriceRange(currency="EUR", low=1, high=1)),
    ],
)
def test_a_field_at_its_bound_is_taken(request_: wire.FindSimilarRequest):
    parse_lookup(request_)


@pytest.mark.parametrize("many", [0, MAX_LOOKUPS + 1])
def test_a_batch_of_none_or_too_many_is_refused(many: int):
    with pytest.raises(InvalidRequest, match=f"requests: .*; give 1 to {MAX_LOOKUPS}|at most {MAX_LOOKUPS}"):
        check_batch(wire.FindSimilarBatchRequest(requests=[lookup()] * many))


@pytest.mark.parametrize("ids", [[], ["a"] * (MAX_ITEMS + 1), ["a", ""]])
def test_ids_of_none_or_too_many_or_no_item_are_refused(ids: list[str]):
    with pytest.raises(InvalidRequest, match="item_ids"):
        parse_ids(wire.GetItemsRequest(item_ids=ids))
