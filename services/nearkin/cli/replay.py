"""`nearkin replay`: why an answer was given, from what the look-up server logged of it."""

import json
import re
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nearkin.cli.explain import explained, moves
from nearkin.cli.target import data_option, target
from nearkin.cli.terminal import terminal
from nearkin.contracts.topics import DAY_MS, LOOKUPS
from nearkin.core.retrieval import Ranking

if TYPE_CHECKING:
    from nearkin.cli.find_answer import Search
    from nearkin.core.answer import LoggedAnswer
    from nearkin.ops.settings import Settings

#: So many of the other items that were looked up under the same request id are named; --json names more.
_NAMED = 5

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": DAY_MS}


class AgeType(click.ParamType):
    """How long ago: `90s`, `30m`, `12h` or `2d`."""

    name = "AGE"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> int:
        """Read it as milliseconds."""
        if isinstance(value, int):
            return value
        parts = re.fullmatch(r"([0-9]{1,6})([smhd])", value)
        if parts is None:
            self.fail(f"{value!r} is no age; write it as 90s, 30m, 12h or 2d", param, context)
        return int(parts[1]) * _UNITS_MS[parts[2]]


@click.command()
@click.argument("request_id", metavar="REQUEST")
@click.option(
    "--since", "age_ms", type=AgeType(), default="1h", show_default=True,
    help="How long ago it was answered, at most: 90s, 30m, 12h or 2d.",
)  # fmt: skip
@click.option("--anchor", metavar="ID", help="The item that was looked up: reads its partition alone.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@data_option
def replay(request_id: str, age_ms: int, anchor: str | None, as_json: bool, data: Path | None) -> None:
    """Show from the log why an answer was given.

    Tells who named each item, what it was ranked by, what was moved and drawn.

    REQUEST is the look-up's request id, which every answer tells. The answer is looked for among those that were logged
    lately; exits with 4 where it is not there, and says why that may be. Where several look-ups had the same id, the
    one that was answered first is shown and the others are counted; --anchor chooses.
    """
    from nearkin.cli.find_answer import find_answer

    settings = target(data)
    since_ms = time.time_ns() // 1_000_000 - age_ms
    found = find_answer(
        settings.kafka_bootstrap, request_id, max(0, since_ms), anchor=anchor, security=settings.kafka_security
    )
    if found.answer is None:
        click.echo(_why_not(request_id, anchor, since_ms, found.read, settings), err=True)
        raise click.exceptions.Exit(4)
    parts = _contributions(found.answer, settings.ranking_weights)
    if as_json:
        said = _told(found.answer, parts)
        others = [
            {"anchor": one.anchor, "surface": one.surface, "ranking": one.ranking, "answered_at": _time(one.at_ms)}
            for one in found.others
        ]
        where = {"partition": found.partition, "offset": found.offset}
        click.echo(json.dumps(said | where | {"others": others, "others_not_named": found.unnamed}))
    else:
        _show(found.answer, parts, f"{LOOKUPS.name}[{found.partition}] offset {found.offset}", _beside(found))


def _why_not(request_id: str, anchor: str | None, since_ms: int, read: int, settings: "Settings") -> str:
    from nearkin.core.answer import is_sampled

    of = "" if anchor is None else f" of the partition of anchor {anchor!r}"
    reasons = ["it is older (give a longer --since)", "another request id was given back with the answer"]
    if since_ms < time.time_ns() // 1_000_000 - LOOKUPS.retention_ms:
        reasons[0] = f"it is older than the {LOOKUPS.retention_ms // DAY_MS} days that answers are kept"
    if anchor is not None:
        reasons.append("it was the look-up of another anchor, or of a content (leave --anchor out)")
    rate = settings.lookup_log_rate
    if rate < 1 and not is_sampled(request_id, rate):
        reasons.append(
            f"it was not sampled: with NEARKIN_LOOKUP_LOG_RATE={rate:g} it is logged only if it was explored"
        )
    reasons.append("the server dropped it, which nearkin_lookups_unlogged_total counts")
    reasons.append("the embedded broker, which keeps nothing over its own end, was started again since")
    listed = "".join(f"\n  - {reason}" for reason in reasons)
    return f"no answer to request {request_id!r} is among the {read} answers{of} since {_time(since_ms)}; maybe{listed}"


def _contributions(answer: "LoggedAnswer", weights_file: Path | None) -> list[dict[str, float]]:
    """For each item what each feature added to its score; nothing where that cannot be told.

    The weights are told by their id, and believed where they give the scores that were logged: the shipped ones change
    from version to version, and anybody can give a file the same id.

    Raises:
        Misconfigured: the file of weights is not as it must be.
    """
    import numpy as np

    from nearkin.contracts.weights import read_weights
    from nearkin.core.features import FEATURE_NAMES, FEATURE_VERSION
    from nearkin.core.ranking import DEFAULT_WEIGHTS, contributions

    known = [DEFAULT_WEIGHTS] if weights_file is None else [read_weights(weights_file), DEFAULT_WEIGHTS]
    nothing: list[dict[str, float]] = [{} for _ in answer.positions]
    if (answer.features_version, answer.feature_names) != (FEATURE_VERSION, FEATURE_NAMES):
        return nothing
    if not all(one.features for one in answer.positions):
        return nothing
    features = np.array([one.features for one in answer.positions]).reshape(-1, len(FEATURE_NAMES))
    scores = [one.score for one in answer.positions]
    for weights in (one.only(ranking) for one in known for ranking in Ranking):
        parts = contributions(features, weights)
        if weights.id == answer.weights and np.allclose(parts.sum(axis=1), scores, rtol=1e-6, atol=1e-6):
            return [dict(zip(FEATURE_NAMES, row, strict=True)) for row in parts.tolist()]
    return nothing


def _told(answer: "LoggedAnswer", parts: list[dict[str, float]]) -> dict[str, Any]:
    """The whole answer; features and contributions by their names."""
    told = asdict(answer)
    told["answered_at"] = _time(told.pop("at_ms"))
    del told["content_hash"]  # is not logged
    for place, placed, adds in zip(told["positions"], answer.positions, parts, strict=True):
        place["sources"] = [source._asdict() for source in placed.sources]
        place["features"] = dict(zip(answer.feature_names, place["features"], strict=False))
        place["contributions"] = adds
    return told


def _show(answer: "LoggedAnswer", parts: list[dict[str, float]], origin: str, beside: str) -> None:
    from nearkin.client.lookup import Moved, Neighbour, Source

    console = terminal()

    def say(line: str, style: str = "") -> None:
        console.print(line, style=style, markup=False, highlight=False)

    anchor = f"item {answer.anchor!r}" if answer.anchor is not None else "a content, which is not logged"
    context = [f"surface {answer.surface!r}"] if answer.surface else []
    context += [f"market {answer.market!r}"] if answer.market else []
    say(f"request {answer.request_id!r}: {answer.k} neighbours of {anchor}{''.join(f', {one}' for one in context)}")
    say(f"answered {_time(answer.at_ms)} with {len(answer.positions)}")
    if beside:
        say(beside, style="yellow")
    if answer.degraded:
        say(f"answered without: {', '.join(answer.degraded)}", style="yellow")
    neighbours = [
        Neighbour(
            one.item_id,
            one.score,
            "",
            tuple(Source(source.name, source.score, source.rank) for source in one.sources),
            one.propensity,
            dict(zip(answer.feature_names, one.features, strict=False)),
            adds,
        )
        for one, adds in zip(answer.positions, parts, strict=True)
    ]
    console.print(explained(neighbours) if neighbours else "nothing was found", highlight=False)
    if answer.moved:
        console.print(moves([Moved(one.item, one.rule, one.was, one.now, one.because_of) for one in answer.moved]))
    if answer.weights and answer.positions and not any(parts):
        say(
            f"What each feature added is not told: weights {answer.weights!r} are not known here or give other scores; "
            "NEARKIN_RANKING_WEIGHTS names the file of those that are not the shipped ones."
        )
    say(_rests_on(answer), style="dim")
    say(f"from {origin}; such an answer is logged with probability {answer.log_rate:g}", style="dim")


def _beside(found: "Search") -> str:
    """That other look-ups had the same request id, and how their answers are shown; nothing where none had."""
    if not found.others or found.answer is None:
        return ""
    number = 1 + len(found.others) + found.unnamed
    named = f"{len(found.others)} of the others" if found.unnamed else "the others"
    said = f"{number} answers have this request id, and this one was given first; --json names {named}"
    shown = found.answer.anchor
    anchors = [one for one in dict.fromkeys(other.anchor for other in found.others) if one not in (None, shown)]
    if not anchors:
        return said
    least = "at least " if found.unnamed else ""
    more = f" and {least}{len(anchors) - _NAMED} more" if len(anchors) > _NAMED else ""
    return f"{said}, and --anchor shows that of another item: {', '.join(map(repr, anchors[:_NAMED]))}{more}"


def _rests_on(answer: "LoggedAnswer") -> str:
    """What gave the answer."""
    weights = f" with weights {answer.weights}, features version {answer.features_version}" if answer.weights else ""
    parts = [f"ranking {answer.ranking}{weights}", f"draw: {answer.policy}"]
    parts += [f"collection {answer.collection}, bundle {answer.bundle}"] if answer.collection else []
    parts += [f"position priors {answer.priors_version}"] if answer.priors_version else []
    return "; ".join(parts)


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
