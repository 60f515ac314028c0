"""The catalogue that ships with the package."""

from datetime import date
from importlib.resources import files

import nearkin.embedded.catalogue
from nearkin.embedded.catalogue.online_retail import load_catalogue


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
        assert item.markets
        assert all(len(market) == 2 and market.isupper() for market in item.markets)


def test_some_items_are_new_after_the_day_that_the_demo_holds_back_from() -> None:
    assert sum(item.first_sold >= date(2011, 10, 1) for item in load_catalogue()) == 157


def test_its_source_and_licence_are_told_beside_it() -> None:
    text = files(nearkin.embedded.catalogue).joinpath("ATTRIBUTION.txt").read_text()
    assert "CC0" in text
    assert "doi:10.1057/dbm.2012.17" in text
