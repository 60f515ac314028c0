"""`nearkin fit` as a person uses it: a folder of `nearkin split` becomes weights that a look-up takes."""

import csv
import json
import random
import re

import pytest

from nearkin.contracts.weights import encode_weights, read_weights
from nearkin.core.features import FEATURE_NAMES
from nearkin.core.ranking import DEFAULT_WEIGHTS, RankingWeights

SETS = [
    ["red mug", "paper plate"], ["blue vase", "garden hose"], ["tea towel", "wool hat"], ["red vase", "blue towel"],
    ["paper hat", "garden mug"],
]  # fmt: skip
TITLES = [title for pair in SETS for title in pair]


@pytest.fixture
def shop(tmp_path, nearkin):
    """A shop where pairs are bought together that do not look alike, before the cut and after it."""
    rng, lines = random.Random(0), []
    for visit in range(240):
        day = f"2011-{'08' if visit < 160 else '09'}-{1 + visit % 28:02d}"
        lines += [(f"v{visit}", title.replace(" ", "-"), day) for title in rng.choice(SETS)]
    with (tmp_path / "log.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("visit", "item", "time"), *lines])
    (tmp_path / "items.jsonl").write_text(
        "".join(json.dumps({"id": title.replace(" ", "-"), "title": title}) + "\n" for title in TITLES)
    )
    assert nearkin("split", "log.csv", "shop", "--cut", "2011-09-01").exit_code == 0
    # The shipped weights know such a shop by heart: nothing is left to be fitted.
    clicks_alone = RankingWeights("clicks-alone", dict.fromkeys(FEATURE_NAMES, 0.0) | {"coec": 2.0})
    (tmp_path / "clicks-alone.json").write_bytes(encode_weights(clicks_alone))
    return tmp_path


def test_weights_are_fitted_and_can_be_read(nearkin, shop):
    result = nearkin(
        "fit", "shop", "--items", "items.jsonl", "--out", "weights.json", "--id", "mine", "--start", "clicks-alone.json"
    )
    assert result.exit_code == 0, result.output
    assert "mine in weights.json: the first item is right with a chance of" in result.output
    weights = read_weights(shop / "weights.json")
    assert weights.id == "mine"
    assert weights.fitted_on.startswith("shop (10 anchors); half-life of ")
    assert weights.features["coec"] == 2
    assert weights.features["co_visit_lift"] > 0.1


def test_a_fit_starts_from_weights_that_were_fitted_before(nearkin, shop):
    for start, out, feature in (
        ("clicks-alone.json", "one.json", "co_visit_cosine"),
        ("one.json", "two.json", "co_visit_lift"),
    ):
        result = nearkin("fit", "shop", "--items", "items.jsonl", "--out", out, "--start", start, "--feature", feature)
        assert result.exit_code == 0, result.output
    one, two = read_weights(shop / "one.json"), read_weights(shop / "two.json")
    assert two.features["co_visit_cosine"] == one.features["co_visit_cosine"] > 0
    assert two.features["co_visit_lift"] > one.features["co_visit_lift"] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("log.csv",), "log.csv is no folder: make one of a log with `nearkin split`"),
        (("shop",), "no item has a text"),
        (("shop", "--items", "items.jsonl", "--id", DEFAULT_WEIGHTS.id), "names the shipped weights; give another one"),
        (("shop", "--items", "items.jsonl", "--id", f"{DEFAULT_WEIGHTS.id}:evidence"), "names the shipped weights"),
        (("shop", "--items", "items.jsonl", "--id", "x" * 300), "is no id"),
        (("shop", "--items", "items.jsonl", "--id", " "), "is no id"),
        (("shop", "--items", "items.jsonl", "--feature", "charm"), "'charm' is no feature"),
        (("shop", "--items", "items.jsonl", "--start", "items.jsonl"), "holds no weights"),
    ],
)
def test_what_cannot_be_fitted_is_refused_with_the_remedy(nearkin, shop, arguments, said):
    result = nearkin("fit", *arguments, "--out", "weights.json")
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
    assert not (shop / "weights.json").exists()


@pytest.mark.slow
def test_the_documented_command_fits_the_weights_that_are_shipped(nearkin, tmp_path):
    result = nearkin("fit", "online-retail", "--half-life-days", "90", "--out", "weights.json")
    assert result.exit_code == 0, result.output
    weights = read_weights(tmp_path / "weights.json")
    assert dict(weights.features) == pytest.approx(dict(DEFAULT_WEIGHTS.features), rel=0.01)
    told = [int(anchors) for anchors in re.findall(r"\((\d+) anchors\)", weights.fitted_on)]
    assert f"({sum(told):,} warm anchors)" in DEFAULT_WEIGHTS.fitted_on
