"""The file that holds the weights of a ranking: one JSON object, as `nearkin fit` writes it.

`{"id": "...", "feature_version": 1, "fitted_on": "...", "features": {"fused": 4.2, ...}}`, with every feature of
`core/features.py` and no other.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from nearkin.contracts import limits
from nearkin.core.errors import Misconfigured
from nearkin.core.ranking import DEFAULT_WEIGHTS, RankingWeights
from nearkin.core.retrieval import Ranking

#: The id is logged with each answer, at most with the name of a ranking behind it.
MAX_WEIGHTS_ID = limits.MAX_WORD - max(len(f":{one}") for one in Ranking)


_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_WEIGHTS_ID, pattern=limits.ID_PATTERN)]


class _Weights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: _Id
    feature_version: int
    features: Mapping[str, float]
    fitted_on: str = ""


def require_new_id(weights_id: str) -> None:
    """Refuse an id for new weights that no file may have, or that says in logs that the shipped weights gave a score.

    Raises:
        Misconfigured: it is such an id.
    """
    try:
        msgspec.convert(weights_id, _Id)
    except msgspec.ValidationError as error:
        remedy = f"give 1 to {MAX_WEIGHTS_ID} characters, no control characters among them"
        raise Misconfigured(f"is no id: {error}", field="id", remedy=remedy, reason="setting") from error
    if weights_id.partition(":")[0] == DEFAULT_WEIGHTS.id:
        raise Misconfigured(
            f"{weights_id!r} names the shipped weights", field="id", remedy="give another one", reason="setting"
        )


def encode_weights(weights: RankingWeights) -> bytes:
    """The file's content, for a person too."""
    value = _Weights(weights.id, weights.feature_version, weights.features, weights.fitted_on)
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def read_weights(path: Path) -> RankingWeights:
    """The weights of a file.

    Raises:
        Misconfigured: it cannot be read, or holds no weights for the features of this version.
    """
    remedy = "give a file that `nearkin fit` wrote"
    try:
        value = msgspec.json.decode(path.read_bytes(), type=_Weights)
    except OSError as error:
        what = error.strerror or "cannot be read"
        raise Misconfigured(what, field=str(path), remedy=remedy, reason="weights") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(f"holds no weights: {error}", field=str(path), remedy=remedy, reason="weights") from error
    try:
        return RankingWeights(value.id, dict(value.features), value.fitted_on, value.feature_version)
    except Misconfigured as error:
        raise Misconfigured(error.problem, field=str(path), remedy=error.remedy, reason="weights") from error
