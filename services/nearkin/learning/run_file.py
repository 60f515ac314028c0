"""A run: what was answered to each anchor, kept in a file, so that it can be scored and compared at any time.

Two forms, told apart by the file's name:
- `*.jsonl`: a line `{"anchor": id, "items": [id, ...]}` for each anchor, best first; takes any id;
- any other: TREC's, a line `anchor Q0 item rank score tag` for each answered item, as `trec_eval` and its kin read it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from nearkin.core.errors import Misconfigured
from nearkin.learning.truth import read_objects, read_text_lines, wrong_form

#: For each anchor, the ids of the items that were answered, best first.
Run = Mapping[str, Sequence[str]]


def read_run(path: Path) -> dict[str, list[str]]:
    """The run that a file holds.

    In TREC's form the score orders the items of an anchor, as everywhere; equal scores are ordered by rank, then by
    line. (`trec_eval` orders those by id, backwards: what `write_run` wrote has no equal scores.)

    Raises:
        Misconfigured: it cannot be read, is of no such form, or answers to an anchor twice.
    """
    return _read_lines(path) if path.suffix == ".jsonl" else _read_trec(path)


def write_run(path: Path, run: Run, tag: str = "nearkin") -> None:
    """Leave a run in a file, in the form that its name asks for.

    Scores only say the order: the last item of an anchor has 1, the one before it 2, and so on. The answer to an anchor
    that got no item is kept in JSON Lines alone; both count as no answer.

    Raises:
        Misconfigured: TREC's form cannot hold an id, as a blank ends it there.
    """
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for anchor, items in run.items():
            if path.suffix == ".jsonl":
                file.write(json.dumps({"anchor": anchor, "items": list(items)}) + "\n")
                continue
            for rank, item in enumerate(items, 1):
                columns = (anchor, "Q0", item, str(rank), str(len(items) - rank + 1), tag)
                if any(len(column.split()) != 1 for column in columns):
                    remedy = "name the file *.jsonl, which takes any id"
                    raise Misconfigured("an id or the tag holds a blank", field=str(path), remedy=remedy, reason="file")
                file.write(" ".join(columns) + "\n")


def _read_lines(path: Path) -> dict[str, list[str]]:
    run: dict[str, list[str]] = {}
    for place, line in read_objects(path):
        anchor, items = line.get("anchor"), line.get("items")
        if not isinstance(anchor, str) or not isinstance(items, list) or not all(isinstance(one, str) for one in items):
            raise wrong_form("is no answer", place, 'write {"anchor": "1", "items": ["2", "3"]}')
        if anchor in run:
            raise wrong_form("answers to an anchor for the second time", place, "keep one of the two lines")
        run[anchor] = items
    return run


def _read_trec(path: Path) -> dict[str, list[str]]:
    answers: dict[str, list[tuple[float, float, str]]] = {}
    for place, line in read_text_lines(path):
        words = line.split()
        if len(words) != 6:
            remedy = "write `anchor Q0 item rank score tag`, or give JSON Lines in a file named *.jsonl"
            raise wrong_form(f"has {len(words)} columns instead of 6", place, remedy)
        anchor, _, item, rank, score, _ = words
        answers.setdefault(anchor, []).append((-_number(score, "score", place), _number(rank, "rank", place), item))
    return {anchor: [item for *_, item in sorted(found, key=lambda one: one[:2])] for anchor, found in answers.items()}


def _number(text: str, name: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise wrong_form(f"has a {name} that is no number", place, "write `anchor Q0 item rank score tag`")
    return value
