"""docs/ranking.md says what the code does."""

import re
from pathlib import Path

from nearkin.core.features import FEATURE_VERSION, FEATURES
from nearkin.core.ranking import DEFAULT_WEIGHTS

PAGE = (Path(__file__).parents[2] / "docs" / "ranking.md").read_text(encoding="utf-8")


def test_every_feature_stands_there_with_what_it_is_made_of_and_its_weight():
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| .* \| (−?[\d.]+) \|$", PAGE, re.MULTILINE)
    told = [(name, group, float(weight.replace("−", "-"))) for name, group, weight in rows]
    assert told == [(one.name, one.group.value, DEFAULT_WEIGHTS.features[one.name]) for one in FEATURES]


def test_it_names_the_version_of_the_features_and_the_weights():
    assert f"## Features, version {FEATURE_VERSION}" in PAGE
    assert f"`{DEFAULT_WEIGHTS.id}`" in PAGE
