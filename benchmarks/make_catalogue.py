"""Make the catalogue and the invoices that the package ships from the Online Retail transactions.

    python -m benchmarks.make_catalogue [FOLDER]

`online_retail.jsonl.gz` has a line for each product, in the order of the ids: a stock code of five digits and what
follows, sold to a known customer in a positive quantity at a positive price (the lines that the evaluation protocol
counts, so the ids are the same there). `title` is its most used description, the alphabetically first where several
are, `price` the median, `first_sold` the day of its first line, `markets` where it was sold. All but the day come from
lines before `KNOWN_UNTIL`, from which on evaluations ask: of a product that was sold before it, nothing is told that
was not known then. One that was first sold later is described by its own lines, as its maker would describe it.

`online_retail_invoices.jsonl.gz` has a line for each invoice with such lines, in time order: its number, the time of
the first of them as if it were UTC, and its different products. The same input gives the same bytes.
"""

import argparse
import gzip
import json
import tempfile
from pathlib import Path

import pandas as pd  # type: ignore[import-untyped]

from benchmarks.datasets import REPOSITORY, load_protocol, unpack

SHIPPED = REPOSITORY / "services" / "nearkin" / "embedded" / "catalogue"
PRODUCTS = r"\d{5}"
KNOWN_UNTIL = "2011-10-01"

#: The data's country names as ISO 3166-1 codes; what names no single country is no market.
MARKETS = {
    "Australia": ["AU"],
    "Austria": ["AT"],
    "Bahrain": ["BH"],
    "Belgium": ["BE"],
    "Brazil": ["BR"],
    "Canada": ["CA"],
    "Channel Islands": ["GG", "JE"],
    "Cyprus": ["CY"],
    "Czech Republic": ["CZ"],
    "Denmark": ["DK"],
    "EIRE": ["IE"],
    "European Community": [],
    "Finland": ["FI"],
    "France": ["FR"],
    "Germany": ["DE"],
    "Greece": ["GR"],
    "Hong Kong": ["HK"],
    "Iceland": ["IS"],
    "Israel": ["IL"],
    "Italy": ["IT"],
    "Japan": ["JP"],
    "Lebanon": ["LB"],
    "Lithuania": ["LT"],
    "Malta": ["MT"],
    "Netherlands": ["NL"],
    "Norway": ["NO"],
    "Poland": ["PL"],
    "Portugal": ["PT"],
    "RSA": ["ZA"],
    "Saudi Arabia": ["SA"],
    "Singapore": ["SG"],
    "Spain": ["ES"],
    "Sweden": ["SE"],
    "Switzerland": ["CH"],
    "USA": ["US"],
    "United Arab Emirates": ["AE"],
    "United Kingdom": ["GB"],
    "Unspecified": [],
}


def describe(item: str, lines: pd.DataFrame) -> dict[str, object]:
    titles = lines.text.dropna().str.strip()
    return {
        "id": item,
        "title": " ".join(titles.mode().iat[0].split()),
        "price": round(float(lines.price.median()), 2),
        "first_sold": lines["at"].min().date().isoformat(),
        "markets": sorted({code for country in lines.Country.unique() for code in MARKETS[country]}),
    }


def list_products(sales: pd.DataFrame) -> list[dict[str, object]]:
    known = sales["at"] < KNOWN_UNTIL
    described = sales[known | ~sales["item"].isin(sales["item"][known])]
    return [describe(item, lines) for item, lines in described.groupby("item", sort=True)]


def list_invoices(sales: pd.DataFrame) -> list[dict[str, object]]:
    invoices = [
        {"visit": visit, "at": f"{lines['at'].min().isoformat()}Z", "items": sorted(set(lines["item"]))}
        for visit, lines in sales.groupby("visit", sort=True)
    ]
    return sorted(invoices, key=lambda one: str(one["at"]))


def pack(rows: list[dict[str, object]]) -> bytes:
    text = "".join(json.dumps(row, separators=(",", ":"), ensure_ascii=False) + "\n" for row in rows)
    return gzip.compress(text.encode(), 9, mtime=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=SHIPPED)
    out = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as folder:
        transactions = unpack("onlineretail", Path(folder)) / "transactions.parquet"
        sales = load_protocol("item_to_item").load_sales(transactions, PRODUCTS)
    for name, rows in (("online_retail", list_products(sales)), ("online_retail_invoices", list_invoices(sales))):
        packed = pack(rows)
        (out / f"{name}.jsonl.gz").write_bytes(packed)
        print(f"{out / name}.jsonl.gz: {len(rows)} lines, {len(packed)} bytes")


if __name__ == "__main__":
    main()
