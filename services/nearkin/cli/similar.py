"""`nearkin similar`: the items most similar to an item, or to a text."""

import json
import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from nearkin.cli.printable import printable
from nearkin.cli.target import data_option, target
from nearkin.cli.terminal import terminal
from nearkin.contracts.limits import CURRENCY_PATTERN
from nearkin.core.filters import ItemFilter, PriceRange
from nearkin.core.item import Availability, CategoryPath, Content
from nearkin.core.retrieval import Retrieval

#: How many neighbours the look-up service gives at most; its own constant is slow to import, and a test compares them.
MOST = 200

#: What a table of fused scores must say: its first one looks like a perfect match, and is none.
FUSED_SCORES = "Fused scores are relative to this answer: 1 is what came first by meaning and by words, however near."


class CategoryPathType(click.ParamType):
    """A category path as people write it: `Home > Kitchen > Mugs`."""

    name = "A > B"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> CategoryPath:
        """Split it at every >."""
        names = tuple(name.strip() for name in str(value).split(">"))
        if not all(names):
            self.fail(f"{value!r} has an empty name; write it as 'Home > Kitchen'", param, context)
        return names


class PairType(click.ParamType):
    """An attribute and its value: `colour=red`."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> tuple[str, str]:
        """Split it at the first =."""
        name, equals, wanted = str(value).partition("=")
        if not name or not equals:
            self.fail(f"{value!r} is not name=value", param, context)
        return name, wanted


class PriceType(click.ParamType):
    """A price range: `GBP:1.5..10`, `GBP:..10` or `GBP:5..`."""

    name = "CUR:low..high"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> PriceRange:
        """Read the currency and both ends."""
        currency, _, ends = str(value).partition(":")
        low, dots, high = ends.partition("..")
        try:
            least, most = (float(end) if end else None for end in (low, high))
        except ValueError:
            dots = ""
        if not dots or not re.match(CURRENCY_PATTERN, currency) or not _is_amount(least) or not _is_amount(most):
            self.fail(f"{value!r} is not a price range; write it as GBP:1.5..10, GBP:..10 or GBP:5..", param, context)
        if least is not None and most is not None and least > most:
            self.fail(f"{value!r} is empty: {low} is above {high}; swap them, or leave one out", param, context)
        return PriceRange(currency, least, most)


def _is_amount(end: float | None) -> bool:
    return end is None or 0 <= end < math.inf


@click.command()
@click.argument("item_id", metavar="[ID]", required=False)
@click.option("--text", help="Look up by this text instead of an item.")
@click.option("-k", type=click.IntRange(1, MOST), default=10, show_default=True, help="How many neighbours at most.")
@click.option("--category", "categories_any", type=CategoryPathType(), multiple=True, help="Has any of these paths.")
@click.option("--category-all", "categories_all", type=CategoryPathType(), multiple=True, help="Has all these paths.")
@click.option("--under", "category_prefix", type=CategoryPathType(), help="A path starts with this: 'home > kitchen'.")
@click.option("--tag", "tags_any", multiple=True, help="Has any of these tags.")
@click.option("--tag-all", "tags_all", multiple=True, help="Has all these tags.")
@click.option("--attribute", "attributes", type=PairType(), multiple=True, help="Has this attribute.")
@click.option("--price", type=PriceType(), help="Costs so much: GBP:1.5..10, GBP:..10 or GBP:5..")
@click.option("--availability", type=click.Choice([str(a) for a in Availability]), multiple=True, help="Any of these.")
@click.option("--market", default="", help="Is sold there.")
@click.option("--exclude", "exclude_ids", multiple=True, metavar="ID", help="Is none of these.")
@click.option(
    "--retrieval", type=click.Choice([str(r) for r in Retrieval]), default="fused", show_default=True,
    help="By meaning (dense), by words (lexical), or both.",
)  # fmt: skip
@click.option("--explain", is_flag=True, help="Show which search found a neighbour, with its score and rank.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@data_option
def similar(
    item_id: str | None,
    text: str | None,
    k: int,
    retrieval: str,
    explain: bool,
    as_json: bool,
    data: Path | None,
    availability: tuple[str, ...],
    category_prefix: CategoryPath | None,
    **conditions: Any,
) -> None:
    """Show the items most similar to the item ID, or to a text.

    Options that may be repeated are marked by what they say: any of them, or all of them. A category is written as its
    whole path, with > between the names: 'home > kitchen > mugs'; --under takes the beginning of one. Scores are
    comparable within one answer only.
    """
    if (item_id is None) == (text is None):
        raise click.UsageError("give an item's ID or --text, one of the two")
    from nearkin.client.lookup import BlockingLookupClient

    wanted = ItemFilter(
        availability=tuple(Availability(one) for one in availability),
        category_prefix=category_prefix or (),
        **conditions,
    )
    with BlockingLookupClient(target(data).lookup_address) as lookups:
        found = lookups.similar(
            item_id=item_id,
            content=None if text is None else Content(title=text),
            k=k,
            filter=wanted,
            retrieval=Retrieval(retrieval),
            explain=explain,
        )
    if as_json:
        answer = asdict(found)
        for neighbour in () if explain else answer["neighbours"]:
            del neighbour["sources"]
        click.echo(json.dumps(answer))
        return
    table = Table("", "id", "score", "title", *(["found by"] if explain else []))
    for rank, one in enumerate(found.neighbours, 1):
        sources = ", ".join(f"{s.name} #{s.rank} ({s.score:.3f})" for s in one.sources)
        found_by = [sources] if explain else []
        table.add_row(str(rank), printable(one.id), f"{one.score:.4f}", printable(one.title), *found_by)
    console = terminal()
    console.print(table if found.neighbours else "no item is similar under these conditions")
    if found.neighbours and retrieval == Retrieval.FUSED:
        console.print(FUSED_SCORES, style="dim", highlight=False)
    console.print(f"from {found.collection}, bundle {found.bundle}", style="dim", highlight=False)
