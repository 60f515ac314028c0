"""An item's state is two registers and a deletion, and merging events into it never depends on their order.

*Content* (what the item is) and *offer* (what it costs and where it is sold) each carry a version; the newest wins.
A deletion with version v ends every content with a version <= v and every offer with a version <= v; a newer upsert
revives the item with what it brings. All versions of one item count on one clock: milliseconds, or one counter.

The state is a join-semilattice: `merge` is commutative, associative and idempotent, because each register keeps the
maximum of its version. One version with two different values is a producer's error, but a frequent one (two changes in
one millisecond): then the value whose text is greater wins, so that every order still ends the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from nearkin.core.probe import is_probe

#: Versions are compared as doubles by the index, so they must stay below 2**53.
MAX_VERSION = 2**53 - 1

#: Stands for "no such event yet": smaller than every version.
NEVER = -1

#: Categories are paths from the broadest to the narrowest: ("home", "kitchen", "mugs").
CategoryPath = tuple[str, ...]


def category_key(path: CategoryPath) -> str:
    """The keyword of a category path: its names joined by "/", with "%" and "/" in them escaped."""
    return "/".join([name.replace("%", "%25").replace("/", "%2F") for name in path])


class Status(StrEnum):
    """Whether an item may be shown."""

    ACTIVE = "active"
    HIDDEN = "hidden"


class Availability(StrEnum):
    """Whether an item can be had now."""

    IN_STOCK = "in_stock"
    OUT_OF_STOCK = "out_of_stock"
    PREORDER = "preorder"
    DISCONTINUED = "discontinued"


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with its unit, such as 250 "ml"."""

    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class Price:
    """An amount in a currency's major unit and the currency's ISO 4217 code."""

    amount: float
    currency: str


@dataclass(frozen=True, slots=True)
class Content:
    """What an item is: everything an encoder may read."""

    title: str = ""
    description: str = ""
    language: str = ""
    categories: tuple[CategoryPath, ...] = ()
    tags: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, Quantity] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()
    maker: str = ""
    variant_group: str = ""
    status: Status = Status.ACTIVE


@dataclass(frozen=True, slots=True)
class Offer:
    """What an item costs and where it is sold; no markets means every market."""

    price: Price | None = None
    availability: Availability = Availability.IN_STOCK
    markets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Versions:
    """The three versions that say which events a state has seen; `NEVER` where there was none."""

    content: int = NEVER
    offer: int = NEVER
    deleted: int = NEVER


@dataclass(frozen=True, slots=True)
class ItemState:
    """What is known of one item after any set of its events.

    Attributes:
        id: the item's id.
        content: the newest content, None before the first upsert and after a deletion that ended it.
        content_version: its version; kept when a deletion ends the content.
        carried: the offer that the newest content's upsert brought, None where it brought none; where that content
            came more than once, the newest that came with it.
        carried_version: its version.
        offered: the newest offer by version, whichever event brought it.
        offered_version: its version.
        deleted_version: the newest deletion's version.
    """

    id: str
    content: Content | None = None
    content_version: int = NEVER
    carried: Offer | None = None
    carried_version: int = NEVER
    offered: Offer | None = None
    offered_version: int = NEVER
    deleted_version: int = NEVER

    @property
    def versions(self) -> Versions:
        """What this state has seen: a write goes through only where the index still holds the versions that were read.

        Equal versions mean equal states, unless a producer gave one version to two values: compare states, not
        versions, to learn whether an event changes anything.
        """
        return Versions(self.content_version, self.offered_version, self.deleted_version)

    @property
    def is_present(self) -> bool:
        """Whether the item exists: it has content that no deletion ended."""
        return self.content is not None

    @property
    def is_visible(self) -> bool:
        """Whether a look-up may return the item; a probe is returned to the monitor alone."""
        return self.content is not None and self.content.status is Status.ACTIVE and not is_probe(self.id)

    @property
    def is_deleted(self) -> bool:
        """Whether a deletion is the last word on the item."""
        return self.deleted_version > NEVER and self.deleted_version >= self.content_version

    @property
    def offer(self) -> Offer:
        """The offer in force: the newest of what the content brought and what was offered since the last deletion."""
        if self.offered is not None and self.offered_version > max(self.deleted_version, self.carried_version):
            return self.offered
        return self.carried or Offer()


def upserted(
    item_id: str, content: Content, content_version: int, offer: Offer | None = None, offer_version: int = NEVER
) -> ItemState:
    """The state that one upsert alone gives."""
    return ItemState(
        item_id,
        content=content,
        content_version=content_version,
        carried=offer,
        carried_version=offer_version,
        offered=offer,
        offered_version=offer_version,
    )


def offered(item_id: str, offer: Offer, offer_version: int) -> ItemState:
    """The state that one offer alone gives: an item that is not known yet, with a price."""
    return ItemState(item_id, offered=offer, offered_version=offer_version)


def deleted(item_id: str, version: int) -> ItemState:
    """The state that one deletion alone gives: a tombstone."""
    return ItemState(item_id, deleted_version=version)


def merge(old: ItemState, new: ItemState) -> ItemState:
    """Join two states of one item: newest wins, register by register.

    Args:
        old: the state known so far.
        new: another state of the same item, usually that of one event.

    Returns:
        The joined state, with what the newest deletion ended taken out.
    """
    if old.id != new.id:
        raise ValueError(f"cannot merge states of two items, {old.id!r} and {new.id!r}")
    deleted_version = max(old.deleted_version, new.deleted_version)
    content = new if _wins(new.content_version, new.content, old.content_version, old.content) else old
    carried = content
    if new.content_version == old.content_version:
        carried = new if _wins(new.carried_version, new.carried, old.carried_version, old.carried) else old
    offer = new if _wins(new.offered_version, new.offered, old.offered_version, old.offered) else old
    content_ended = content.content_version <= deleted_version
    offer_ended = offer.offered_version <= deleted_version
    return ItemState(
        old.id,
        content=None if content_ended else content.content,
        content_version=content.content_version,
        carried=None if content_ended else carried.carried,
        carried_version=NEVER if content_ended else carried.carried_version,
        offered=None if offer_ended else offer.offered,
        offered_version=offer.offered_version,
        deleted_version=deleted_version,
    )


def _wins(
    new_version: int, new_value: Content | Offer | None, old_version: int, old_value: Content | Offer | None
) -> bool:
    if new_version != old_version:
        return new_version > old_version
    return new_value != old_value and _text(new_value) > _text(old_value)


def _text(value: Content | Offer | None) -> str:
    """Equal values have equal texts, whatever the order of their mappings."""
    if isinstance(value, Content):
        value = replace(
            value, attributes=dict(sorted(value.attributes.items())), numbers=dict(sorted(value.numbers.items()))
        )
    return repr(value)
