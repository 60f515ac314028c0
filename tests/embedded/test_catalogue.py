"""The catalogue that ships with the package."""

from datetime import date
from importlib.resources import files

import nearkin.embedded.catalogue
from nearkin.embedded.catalogue.online_retail import load_catalogue, load_invoices


def test_every_item_is_a_product_with_a_title_a_price_a_first_day_and_markets() -> None:
    items = load_catalogue()
    assert len(items) == 3659
    assert len({item.id for item in items}) == len(items)
    assert [item.id for item in items] == sorted(item.id for item in items)
    for item in items:
        assert item.id[:5].isdigit()
        assert item.title
        assert item.title == " ".join(item.title.split())
        assert item.price > 0
        assert item.currency == "GBP"
        assert date(2010, 12, 1) <= item.first_sold <= date(2011, 12, 9)
        assert all(len(market) == 2 and market.isupper() for market in item.markets)


def test_all_but_one_say_where_they_were_sold() -> None:
    assert [item.id for item in load_catalogue() if not item.markets] == ["85179C"]


def test_some_items_are_new_after_the_day_that_the_demo_holds_back_from() -> None:
    assert sum(item.first_sold >= date(2011, 10, 1) for item in load_catalogue()) == 157


def test_every_invoice_holds_different_products_of_the_catalogue_and_they_come_in_time_order() -> None:
    products = {item.id for item in load_catalogue()}
    invoices = load_invoices()
    assert len(invoices) == 18402
    assert len({one.visit for one in invoices}) == len(invoices)
    assert [one.at for one in invoices] == sorted(one.at for one in invoices)
    assert {item for one in invoices for item in one.items} == products
    assert all(one.items == tuple(sorted(set(one.items))) and one.items for one in invoices)


def test_an_item_is_new_on_the_day_of_its_first_invoice() -> None:
    first: dict[str, date] = {}
    for one in load_invoices():
        for item in one.items:
            first.setdefault(item, one.at.date())
    assert first == {item.id: item.first_sold for item in load_catalogue()}


def test_its_source_and_licence_are_told_beside_it() -> None:
    text = files(nearkin.embedded.catalogue).joinpath("ATTRIBUTION.txt").read_text()
    assert "CC0" in text
    assert "doi:10.1057/dbm.2012.17" in text
