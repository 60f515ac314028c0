"""The file of weights: what was written is read, and what is no weights is refused with the remedy."""

import json

import pytest

from nearkin.contracts.limits import MAX_WORD
from nearkin.contracts.weights import encode_weights, read_weights
from nearkin.core.errors import Misconfigured
from nearkin.core.ranking import DEFAULT_WEIGHTS
from nearkin.core.retrieval import Ranking


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "weights.json"
    path.write_bytes(encode_weights(DEFAULT_WEIGHTS))
    assert read_weights(path) == DEFAULT_WEIGHTS


def changed(**fields):
    return json.dumps(json.loads(encode_weights(DEFAULT_WEIGHTS)) | fields)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no JSON", "holds no weights: .*; give a file that `nearkin fit` wrote"),
        ("\xff", "holds no weights"),
        (changed(charm=1), "holds no weights: Object contains unknown field `charm`"),
        (changed(features={"fused": 1}), "features.content is missing; give every feature its weight"),
        (changed(features={**DEFAULT_WEIGHTS.features, "charm": 1}), "features.charm is no feature; there are"),
        (changed(features={**DEFAULT_WEIGHTS.features, "coec": "much"}), "Expected `float`"),
        (changed(id=""), r"Expected `str` of length >= 1 - at `\$.id`"),
        (changed(id="x" * 248), r"Expected `str` of length <= 247 - at `\$.id`"),
        (changed(id="two\nlines"), r"Expected `str` matching regex .* - at `\$.id`"),
        (changed(feature_version=99), "feature_version is 99; this is 1; fit them again"),
    ],
)
def test_a_file_that_holds_no_weights_is_refused_with_the_remedy(tmp_path, text, said):
    path = tmp_path / "weights.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(Misconfigured, match=said) as refused:
        read_weights(path)
    assert refused.value.field == str(path)


def test_an_id_that_is_read_can_be_logged_whatever_the_ranking(tmp_path):
    path = tmp_path / "weights.json"
    path.write_text(changed(id="x" * 247))
    weights = read_weights(path)
    assert max(len(weights.only(ranking).id) for ranking in Ranking) == MAX_WORD


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(Misconfigured, match="No such file"):
        read_weights(tmp_path / "weights.json")
