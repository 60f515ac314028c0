"""The Online Retail data set: a UK gift retailer's products and invoices of December 2010 to December 2011."""

import gzip
from datetime import date, datetime
from importlib.resources import files
from typing import TypeVar

import msgspec

CURRENCY = "GBP"

Row = TypeVar("Row")


class CatalogueItem(msgspec.Struct, frozen=True):
    """One product, as it was known before October 2011; one that was first sold later by its own sales.

    Attributes:
        id: its stock code.
        title: its most used description.
        price: the median price that it was sold at, in `currency`.
        first_sold: the day of its first sale.
        markets: ISO 3166-1 codes of the countries that it was sold in, in order; none where the data names none.
        currency: ISO 4217.
    """

    id: str
    title: str
    price: float
    first_sold: date
    markets: tuple[str, ...]
    currency: str = CURRENCY


class Invoice(msgspec.Struct, frozen=True):
    """One purchase.

    Attributes:
        visit: its number.
        at: when: the shop's own time, as if it were UTC.
        items: the stock codes of its different products, sorted.
    """

    visit: str
    at: datetime
    items: tuple[str, ...]


def load_catalogue() -> list[CatalogueItem]:
    """Every product, in the order of the ids."""
    return _load("online_retail.jsonl.gz", CatalogueItem)


def load_invoices() -> list[Invoice]:
    """Every purchase of a known customer, in time order."""
    return _load("online_retail_invoices.jsonl.gz", Invoice)


def _load(name: str, kind: type[Row]) -> list[Row]:
    packed = files(__package__).joinpath(name).read_bytes()
    return msgspec.json.Decoder(kind).decode_lines(gzip.decompress(packed))
