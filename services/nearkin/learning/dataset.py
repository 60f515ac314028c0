"""A data set that the service itself is evaluated on: what to publish of it, and what to hold the answers against.

It is an evaluation over time (`learning/item_to_item.py`) and the content of its items. A line says of an item what
`nearkin publish` takes, `{"id": "1", "title": "Red mug", "price": {"amount": 4.5, "currency": "GBP"}}`, or has the
shorter form `{"id": "1", "text": "Red mug", "price": 4.5, "first_sold": "2011-03-01"}`.

No visit of the asked time is published: the visits are those before the cut, and an item that appears only after it is
known by its content alone, from the last training visit on. What describes an item is taken as it is: whether it was
known before the cut is up to whoever describes it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from nearkin.core.errors import Misconfigured
from nearkin.learning.item_to_item import Evaluation, parse_time
from nearkin.learning.truth import read_objects, wrong_form

#: ISO 4217's code for no currency: what prices are in that name none. They are compared with each other all the same.
NO_CURRENCY = "XXX"

#: What an item is searched by: one that has none of it cannot be found by content, nor look anything up.
_TEXTS = ("title", "description", "categories", "tags", "attributes", "maker")

_SHORT = frozenset({"text", "first_sold"})


@dataclass(frozen=True, slots=True)
class ItemLine:
    """What is to be published of an item.

    Attributes:
        place: where it was read, as a person finds it.
        fields: as `nearkin publish` takes them, with the time at which the item is published.
    """

    place: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dataset:
    """What an evaluation of the service needs.

    Attributes:
        evaluation: what can be learnt from, and what answers are held against.
        items: those that can be served, once each.
        without_text: items that stand in visits or in the catalogue and have no text: no answer can hold them.
    """

    evaluation: Evaluation
    items: Sequence[ItemLine]
    without_text: Sequence[str]


def read_items(path: Path) -> list[ItemLine]:
    """The items that a file of JSON Lines describes.

    Raises:
        Misconfigured: it cannot be read, or a line is no item.
    """
    return [ItemLine(place, line) for place, line in read_objects(path)]


def make_dataset(evaluation: Evaluation, lines: Iterable[ItemLine], source: str) -> Dataset:
    """Complete the items with the time at which they are published, and leave out those without a text.

    Args:
        evaluation: whose items these are.
        lines: what is known of them, in either form.
        source: where they come from, for the message that says that none of them has a text.

    Raises:
        Misconfigured: no item has a text, one is named twice, a line is in no form, or there is nothing to learn from.
    """
    if not evaluation.training:
        raise Misconfigured(
            "no visit is before the cut, so nothing can be learnt",
            field="cut",
            remedy="give a later cut, or a longer log",
            reason="setting",
        )
    end = max(visit.at for visit in evaluation.training)
    first: dict[str, datetime] = {}
    for visit in evaluation.training:
        for item in visit.items:
            first.setdefault(item, visit.at)
    items: dict[str, ItemLine] = {}
    for line in lines:
        item_id = line.fields.get("id")
        if not isinstance(item_id, str):
            raise wrong_form("has no id", line.place, 'write {"id": "1", "title": "Red mug"}')
        fields = _published(line)
        if not any(fields.get(name) for name in _TEXTS):
            continue
        if item_id in items:
            raise wrong_form("describes an item for the second time", line.place, "keep one of the two lines")
        sold = _first_sold(line) or first.get(item_id, end)
        at = math.floor(min(sold, end).timestamp() * 1000)
        items[item_id] = ItemLine(line.place, {"occurred_at": at, **fields})
    if not items:
        raise Misconfigured(
            "no item has a text, so none could be found by its content",
            field=source,
            remedy='give a file of lines {"id": "1", "title": "Red mug"} with --items',
            reason="file",
        )
    return Dataset(evaluation, list(items.values()), sorted((evaluation.truth.catalogue | set(first)) - set(items)))


def _published(line: ItemLine) -> dict[str, Any]:
    """A line of the shorter form as the longer one has it, another one as it is."""
    fields = dict(line.fields)
    if not _SHORT & fields.keys():
        return fields
    text, price = fields.get("text", ""), fields.get("price")
    if not isinstance(text, str) or (price is not None and type(price) not in (int, float)):
        raise wrong_form("has a text or a price of a wrong type", line.place, 'write "text": "Red mug", "price": 4.5')
    item = {"id": fields["id"], "title": " ".join(text.split())}
    return item if price is None else item | {"price": {"amount": price, "currency": NO_CURRENCY}}


def _first_sold(line: ItemLine) -> datetime | None:
    sold = line.fields.get("first_sold")
    if sold is None:
        return None
    try:
        return parse_time(sold if isinstance(sold, str) else "")
    except ValueError as error:
        raise wrong_form("has a first_sold that is no time", line.place, 'write "2011-10-01"') from error
