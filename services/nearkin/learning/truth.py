"""What answers are held against: which items are right for an anchor, and which anchors count.

A file of judgements is one of two:
- qrels, as `trec_eval` reads them: a line `anchor 0 item grade` for each judged item;
- JSON, `{anchor: [item, ...]}` or `{anchor: {item: grade}}`.

A folder is a whole evaluation, as `learning/item_to_item.py` writes it: `truth.json` as above, `anchors.json`
(`{slice: [anchor, ...]}`), and where they are there `items.jsonl` (a line `{"id": ...}` for each item of the catalogue)
and `train_visits.jsonl` (a line `{"items": [...]}` for each visit that could be learnt from).
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nearkin.core.errors import Misconfigured

#: The one slice of judgements that name none.
ALL = "all"


@dataclass(frozen=True, slots=True)
class Truth:
    """What answers are held against.

    Attributes:
        positives: for each anchor the items that are right, each with its grade above 0.
        slices: the anchors that count, by the name of the group that they are reported as; each has positives.
        catalogue: every item that an answer could have held; empty where it is not known.
        visits: how many visits could be learnt from; 0 where they are not known.
        popularity: how many of them held an item; an item that is missing was in none.
    """

    positives: Mapping[str, Mapping[str, float]]
    slices: Mapping[str, Sequence[str]]
    catalogue: frozenset[str] = frozenset()
    visits: int = 0
    popularity: Mapping[str, int] = field(default_factory=dict)


def read_truth(path: Path) -> Truth:
    """The judgements of a file, all its anchors one slice, or the whole evaluation of a folder.

    Raises:
        Misconfigured: it cannot be read, is of no such form, or has no anchor with positives.
    """
    if not path.is_dir():
        positives = read_positives(path)
        return Truth(positives, _checked_slices({ALL: list(positives)}, positives, path))
    positives = read_positives(path / "truth.json")
    slices = _checked_slices(read_json(path / "anchors.json"), positives, path / "anchors.json")
    items, visits = path / "items.jsonl", path / "train_visits.jsonl"
    catalogue = frozenset(_id(line, place) for place, line in read_objects(items)) if items.exists() else ()
    held: Counter[str] = Counter()
    count = 0
    for place, line in read_objects(visits) if visits.exists() else ():
        held.update(set(list_of_ids(line.get("items"), place)))
        count += 1
    return Truth(positives, slices, frozenset(catalogue), count, held)


def read_positives(path: Path) -> dict[str, dict[str, float]]:
    """The items that are right for each anchor that has any, with their grades; an anchor itself is never right.

    Raises:
        Misconfigured: the file cannot be read, or is of neither form.
    """
    judged = _read_json_positives(path) if path.suffix == ".json" else _read_qrels(path)
    positives = {
        anchor: {item: grade for item, grade in grades.items() if grade > 0 and item != anchor}
        for anchor, grades in judged.items()
    }
    return {anchor: grades for anchor, grades in positives.items() if grades}


def read_text_lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines that are not blank, each with its place as `file:7`.

    Raises:
        Misconfigured: the file cannot be read as UTF-8 text.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"{path}:{number}", line
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def read_objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file of JSON Lines, each with its place.

    Raises:
        Misconfigured: the file cannot be read, or a line is no object.
    """
    for place, line in read_text_lines(path):
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise wrong_form("is no JSON object", place, "write one JSON object a line")
        yield place, value


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        Misconfigured: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    except ValueError as error:
        raise wrong_form("is not JSON", str(path), "qrels go into a file that is not named .json") from error


def list_of_ids(value: object, place: str) -> list[str]:
    """The value, where it is a list of texts.

    Args:
        value: of a field.
        place: where it stands, as a person finds it.

    Raises:
        Misconfigured: it is something else.
    """
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise wrong_form("is no list of ids", place, 'write ids as strings: ["1", "2"]')
    return value


def wrong_form(problem: str, place: str, remedy: str) -> Misconfigured:
    """The error for a file that holds something else than it must."""
    return Misconfigured(problem, field=place, remedy=remedy, reason="file")


def _unreadable(path: Path, error: Exception) -> Misconfigured:
    what = getattr(error, "strerror", None) or "is no UTF-8 text"
    return Misconfigured(what, field=str(path), remedy="give a file that can be read", reason="file")


def _read_qrels(path: Path) -> dict[str, dict[str, float]]:
    judged: dict[str, dict[str, float]] = {}
    for place, line in read_text_lines(path):
        words = line.split()
        if len(words) != 4:
            remedy = "write `anchor 0 item grade`, or give JSON in a file named .json"
            raise wrong_form(f"has {len(words)} columns instead of 4", place, remedy)
        anchor, _, item, grade = words
        grades = judged.setdefault(anchor, {})
        if item in grades:
            raise wrong_form("judges an item for the second time", place, "keep one of the two lines")
        grades[item] = _grade(grade, place)
    return judged


def _read_json_positives(path: Path) -> dict[str, dict[str, float]]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise wrong_form("is no JSON object", str(path), "write {anchor: [item, ...]}")
    judged: dict[str, dict[str, float]] = {}
    for anchor, found in value.items():
        place = f"{path}, {anchor!r}"
        if isinstance(found, dict):
            judged[anchor] = {item: _grade(grade, place) for item, grade in found.items()}
        else:
            judged[anchor] = dict.fromkeys(list_of_ids(found, place), 1.0)
    return judged


def _grade(value: object, place: str) -> float:
    try:
        grade = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        grade = math.nan
    if not math.isfinite(grade):
        raise wrong_form("has a grade that is no number", place, "grade an item with 0 where it is wrong, else above")
    return grade


def _checked_slices(value: Any, positives: Mapping[str, object], path: Path) -> dict[str, list[str]]:
    if not isinstance(value, dict):
        raise wrong_form("is no JSON object", str(path), "write {slice: [anchor, ...]}")
    slices = {name: list_of_ids(anchors, f"{path}, {name!r}") for name, anchors in value.items()}
    for name, anchors in slices.items():
        if unjudged := [anchor for anchor in anchors if anchor not in positives]:
            remedy = "leave out anchors for which nothing is right: no answer to them can be scored"
            raise wrong_form(
                f"has {len(unjudged)} anchors without positives, {unjudged[0]!r} first", f"{path}, {name!r}", remedy
            )
        if len(set(anchors)) < len(anchors):
            raise wrong_form("names an anchor twice", f"{path}, {name!r}", "name it once")
    slices = {name: anchors for name, anchors in slices.items() if anchors}
    if not slices:
        raise wrong_form("has no anchor with an item that is right", str(path), "give judgements with a grade above 0")
    return slices


def _id(line: Mapping[str, object], place: str) -> str:
    value = line.get("id")
    if not isinstance(value, str):
        raise wrong_form("has no id", place, 'write {"id": "1"}')
    return value
