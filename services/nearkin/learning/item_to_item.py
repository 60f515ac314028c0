"""An evaluation over time from a log of what was bought or seen together: learn before the cut, be asked after it.

- The *positives* of an anchor are the items that share at least `MIN_TOGETHER` visits after the cut with it, with a
  lift of at least `MIN_LIFT` over what chance would give. Only visits of 2 to `LARGEST_VISIT` items count: in larger
  ones everything stands beside everything.
- *Warm* anchors stand in at least `WARM` visits before the cut, *cold* ones in none. At most `SAMPLE` anchors a slice,
  drawn with seed 0. Anchors between the two are in no slice.

A log is a CSV file with the columns `visit`, `item` and `time` (ISO 8601; UTC where no offset is written), in any order
and among others: a line for each item of a visit. What is no product (postage, fees, returns) is to be left out
beforehand. Settings are tuned on an earlier cut, never on the one that is reported.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearkin.core.errors import Misconfigured
from nearkin.learning.truth import Truth, list_of_ids, read_objects, read_truth, wrong_form

MIN_TOGETHER, MIN_LIFT, LARGEST_VISIT, WARM, SAMPLE, SEED = 3, 3.0, 50, 10, 800, 0

COLUMNS = ("visit", "item", "time")

#: How a time may be written.
TIMES = "2011-10-01 or 2011-10-01T08:30:00Z"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: How many pairs are counted at once.
_PAIRS_AT_ONCE = 4_000_000

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TransactionLog:
    """The lines of a log, column by column.

    Attributes:
        items: the ids of all items, sorted.
        visits: the ids of all visits, sorted.
        item: (lines,) where in `items` a line's item is.
        visit: (lines,) where in `visits` a line's visit is.
        time: (lines,) microseconds since the epoch.
    """

    items: Sequence[str]
    visits: Sequence[str]
    item: Numbers
    visit: Numbers
    time: Numbers

    @classmethod
    def of(cls, visits: Sequence[str], items: Sequence[str], times: Sequence[datetime]) -> "TransactionLog":
        """The log of three columns."""
        item_names, item = _numbered(items)
        visit_names, visit = _numbered(visits)
        return cls(item_names, visit_names, item, visit, np.array([_microseconds(time) for time in times], np.int64))

    def between(self, start: datetime | None, end: datetime | None) -> "TransactionLog":
        """The lines from a time on and before another, with the same numbers for items and visits."""
        keep = np.ones(len(self.time), bool)
        if start is not None:
            keep &= self.time >= _microseconds(start)
        if end is not None:
            keep &= self.time < _microseconds(end)
        return TransactionLog(self.items, self.visits, self.item[keep], self.visit[keep], self.time[keep])


@dataclass(frozen=True, slots=True)
class Visit:
    """What one visit held before the cut.

    Attributes:
        id: the visit's.
        at: the time of its first line.
        items: the ids of its different items, sorted.
    """

    id: str
    at: datetime
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What can be learnt from, and what answers are held against.

    Attributes:
        training: visits before the cut, in time order; all that may be learnt from.
        truth: anchors, their positives, the catalogue and how popular its items were before the cut.
    """

    training: Sequence[Visit]
    truth: Truth


def read_log(path: Path) -> TransactionLog:
    """The log that a CSV file holds.

    Raises:
        Misconfigured: it cannot be read, lacks a column, or has a line that is not as it must be.
    """
    visits: list[str] = []
    items: list[str] = []
    times: list[datetime] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file)
            if missing := [column for column in COLUMNS if column not in (lines.fieldnames or ())]:
                remedy = f"name the columns {', '.join(COLUMNS)} in the first line"
                raise wrong_form(f"has no column {', '.join(missing)}", str(path), remedy)
            for line in lines:
                place = f"{path}:{lines.line_num}"
                visit, item, time = (line[column] for column in COLUMNS)
                if not visit or not item:
                    raise wrong_form("lacks the visit or the item", place, "leave out lines without")
                try:
                    times.append(parse_time(time or ""))
                except ValueError as error:
                    raise wrong_form("has a time that is not ISO 8601", place, f"write it as {TIMES}") from error
                visits.append(visit)
                items.append(item)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        what = getattr(error, "strerror", None) or "is no CSV file in UTF-8"
        raise Misconfigured(what, field=str(path), remedy="give a file that can be read", reason="file") from error
    return TransactionLog.of(visits, items, times)


def parse_time(text: str) -> datetime:
    """A time as ISO 8601 writes it; UTC where it has no offset.

    Raises:
        ValueError: it is none.
    """
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def split_log(log: TransactionLog, cut: datetime, until: datetime | None = None) -> Evaluation:
    """Split a log at a time into what is learnt from and what is asked.

    Args:
        log: of products alone.
        cut: the first moment that is asked about.
        until: where that ends, and what comes after it is as if it were not there; None for the log's end.

    Raises:
        Misconfigured: no anchor has positives, so nothing could be scored.
    """
    log = log.between(None, until)
    train, test = log.between(None, cut), log.between(cut, None)
    pairs = np.unique(np.column_stack((train.visit, train.item)), axis=0)
    seen = np.bincount(pairs[:, 1], minlength=len(log.items))
    positives = find_positives(test)

    rng = np.random.default_rng(SEED)
    slices: dict[str, list[str]] = {}
    for name, group in (
        ("warm", [i for i in positives if seen[i] >= WARM]),
        ("cold", [i for i in positives if not seen[i]]),
    ):
        chosen = sorted(group)
        if len(chosen) > SAMPLE:
            chosen = sorted(rng.choice(chosen, SAMPLE, replace=False).tolist())
        if chosen:
            slices[name] = [log.items[i] for i in chosen]
    if not slices:
        raise Misconfigured(
            f"no item that is warm or cold shares {MIN_TOGETHER} visits with another after the cut",
            field="cut",
            remedy="give a longer log, or a cut that leaves more of it on both sides",
            reason="setting",
        )
    return Evaluation(
        _visits(train),
        Truth(
            positives={log.items[i]: {log.items[j]: 1.0 for j in found} for i, found in positives.items()},
            slices=slices,
            catalogue=frozenset(log.items[i] for i in np.unique(log.item).tolist()),
            visits=len(np.unique(train.visit)),
            popularity={log.items[i]: int(seen[i]) for i in np.flatnonzero(seen).tolist()},
        ),
    )


def find_positives(log: TransactionLog) -> dict[int, list[int]]:
    """For each item that has any, the items that come with it often and more than by chance; as numbers, sorted.

    `lift(a, b) = visits with both · visits / (visits with a · visits with b)` over the visits that count.
    """
    baskets = _baskets(log)
    width, visits = len(log.items), sum(len(group) for group in baskets)
    held = np.bincount(np.concatenate([group.ravel() for group in baskets] or [_none()]), minlength=width)
    pairs, together = _count_pairs(baskets, width)
    first, second = np.divmod(pairs, max(width, 1))
    keep = (together >= MIN_TOGETHER) & (together * visits >= MIN_LIFT * held[first] * held[second])
    found: dict[int, list[int]] = {}
    for one, other in zip(first[keep].tolist(), second[keep].tolist(), strict=True):
        found.setdefault(one, []).append(other)
        found.setdefault(other, []).append(one)
    return {item: sorted(others) for item, others in sorted(found.items())}


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Leave an evaluation in a folder, as `learning/truth.py` reads it.

    Raises:
        Misconfigured: nothing can be written there.
    """
    truth = evaluation.truth
    visits = ({"visit": one.id, "at": one.at.isoformat(), "items": one.items} for one in evaluation.training)
    lines: dict[str, Iterable[object]] = {
        "truth.json": [{anchor: list(grades) for anchor, grades in truth.positives.items()}],
        "anchors.json": [{name: list(anchors) for name, anchors in truth.slices.items()}],
        "items.jsonl": ({"id": item} for item in sorted(truth.catalogue)),
        "train_visits.jsonl": visits,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, values in lines.items():
            with (folder / name).open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(value) + "\n" for value in values)
    except OSError as error:
        what = error.strerror or "cannot be written"
        raise Misconfigured(
            what, field=str(folder), remedy="name a folder that can be written", reason="file"
        ) from error


def read_evaluation(folder: Path) -> Evaluation:
    """The evaluation that a folder holds, with its training visits in time order.

    Raises:
        Misconfigured: a file cannot be read, or is not as `write_evaluation` leaves it.
    """
    return Evaluation(sorted(_read_visits(folder / "train_visits.jsonl"), key=lambda one: one.at), read_truth(folder))


def _read_visits(path: Path) -> Iterator[Visit]:
    for place, line in read_objects(path):
        visit, at, items = line.get("visit"), line.get("at"), list_of_ids(line.get("items"), place)
        try:
            time = parse_time(at) if isinstance(at, str) else None
        except ValueError:
            time = None
        if not isinstance(visit, str) or time is None:
            remedy = 'write {"visit": "7", "at": "2011-10-01T08:30:00Z", "items": ["1", "2"]}'
            raise wrong_form("has no visit, or no time", place, remedy)
        yield Visit(visit, time, tuple(items))


def _baskets(log: TransactionLog) -> list[Numbers]:
    """The visits that count, as (visits, size) arrays of items, one for each size; items rise within a row."""
    lines = np.unique(np.column_stack((log.visit, log.item)), axis=0)
    _, starts, sizes = np.unique(lines[:, 0], return_index=True, return_counts=True)
    return [
        lines[starts[sizes == size][:, None] + np.arange(size), 1]
        for size in np.unique(sizes).tolist()
        if 2 <= size <= LARGEST_VISIT
    ]


def _count_pairs(baskets: Sequence[Numbers], width: int) -> tuple[Numbers, Numbers]:
    """The pairs of items that share a visit, each as first · width + second, and how many visits they share."""
    pairs, counts = _none(), _none()
    for codes in _pair_codes(baskets, width):
        new, times = np.unique(codes, return_counts=True)
        pairs, place = np.unique(np.concatenate((pairs, new)), return_inverse=True)
        counts = np.bincount(place, np.concatenate((counts, times))).astype(np.int64)
    return pairs, counts


def _pair_codes(baskets: Sequence[Numbers], width: int) -> Iterator[Numbers]:
    for group in baskets:
        first, second = np.triu_indices(group.shape[1], 1)
        rows = max(1, _PAIRS_AT_ONCE // len(first))
        for start in range(0, len(group), rows):
            part = group[start : start + rows]
            yield (part[:, first] * width + part[:, second]).ravel()


def _visits(log: TransactionLog) -> list[Visit]:
    if not len(log.visit):
        return []
    order = np.lexsort((log.item, log.visit))
    visit, item, time = log.visit[order], log.item[order], log.time[order]
    starts = np.flatnonzero(np.r_[True, visit[1:] != visit[:-1]])
    began = np.minimum.reduceat(time, starts)
    parts = np.split(item, starts[1:])
    return [
        Visit(
            log.visits[visit[starts[place]]],
            _EPOCH + timedelta(microseconds=int(began[place])),
            tuple(log.items[i] for i in np.unique(parts[place])),
        )
        for place in np.argsort(began, kind="stable").tolist()
    ]


def _numbered(names: Sequence[str]) -> tuple[list[str], Numbers]:
    known = sorted(set(names))
    places = {name: number for number, name in enumerate(known)}
    return known, np.fromiter((places[name] for name in names), np.int64, len(names))


def _microseconds(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)


def _none() -> Numbers:
    return np.empty(0, np.int64)
