"""The Online Retail catalogue: what a UK gift retailer sold from December 2010 to December 2011."""

import gzip
from datetime import date
from importlib.resources import files

import msgspec

CURRENCY = "GBP"


class CatalogueItem(msgspec.Struct, frozen=True):
    """One product.

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


def load_catalogue() -> list[CatalogueItem]:
    """Every product, in the order of the ids."""
    packed = files(__package__).joinpath("online_retail.jsonl.gz").read_bytes()
    return msgspec.json.Decoder(CatalogueItem).decode_lines(gzip.decompress(packed))
