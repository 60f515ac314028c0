"""What a look-up may ask of its neighbours; every condition holds inside the search, never after it."""

from dataclasses import dataclass

from nearkin.core.item import Availability, CategoryPath


@dataclass(frozen=True, slots=True)
class PriceRange:
    """Prices from `low` to `high`, both inclusive, in one currency; None leaves an end open."""

    currency: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class ItemFilter:
    """Conditions that must all hold; an empty one asks nothing.

    Attributes:
        categories_any: at least one of these whole paths is a path of the item.
        categories_all: every one of these whole paths is a path of the item.
        category_prefix: a path of the item starts with this one.
        tags_any: at least one of these is a tag of the item.
        tags_all: every one of these is a tag of the item.
        attributes: the item has every one of these (name, value) pairs.
        price: the offer's price lies in this range.
        availability: the offer's availability is one of these.
        market: the offer is sold in this market (an offer without markets is sold everywhere).
        exclude_ids: the item is none of these.
    """

    categories_any: tuple[CategoryPath, ...] = ()
    categories_all: tuple[CategoryPath, ...] = ()
    category_prefix: CategoryPath = ()
    tags_any: tuple[str, ...] = ()
    tags_all: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    price: PriceRange | None = None
    availability: tuple[Availability, ...] = ()
    market: str = ""
    exclude_ids: tuple[str, ...] = ()
