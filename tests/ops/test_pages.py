"""The pages of docs/ that are made from the code say what the code says."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from nearkin.ops import metrics, settings

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("name", "page"), [("metrics", metrics.page), ("settings", settings.page)])
def test_the_page_is_current(name, page):
    text = (DOCS / f"{name}.md").read_text()

    assert text == page(), f"run: python -m nearkin.ops.{name} > docs/{name}.md"


def test_every_setting_is_documented_with_its_default():
    page = settings.page()

    assert all(f"`NEARKIN_{name.upper()}`" in page for name in settings.Settings.model_fields)
    assert "`nearkin-items`" in page


def test_every_metric_has_its_unit_in_its_name():
    units = (
        "_seconds",
        "_total",
        "_events",
        "_items",
        "_points",
        "_pairs",
        "_info",
        "_up",
        "_ratio",
        "_version",
        "_decisions",
        "_letters",
    )

    names = [name for name, *_ in metrics.Metrics(CollectorRegistry()).declared]

    assert all(name.endswith(units) for name in names), names
