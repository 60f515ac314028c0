"""`nearkin similar`: the items most similar to an item, or to a text."""

import json
import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from nearkin.cli.explain import explained, moves
from nearkin.cli.printable import printable
from nearkin.cli.target import data_option, target
from nearkin.cli.terminal import terminal
from nearkin.contracts.limits import CURRENCY_PATTERN
from nearkin.core.filters import ItemFilter, PriceRange
from nearkin.core.item import Availability, CategoryPath, Content
from nearkin.core.retrieval import Ranking, Retrieval

if TYPE_CHECKING:
    from nearkin.client.lookup import Neighbour, SimilarItems

#: How many neighbours the look-up service gives at most; its own constant is slow to import, and a test compares them.
MOST = 200

#: What a table of scores must say: its first one may look like a perfect match, and is none; and a lower one may
#: stand above a higher one.
RELATIVE_SCORES = (
    "Scores are relative to this answer, and mean nothing beside those of another one. They are from before pins, "
    "diversity and the draw, which may have moved items."
)

#: What is told of a neighbour only where an explanation was asked for.
_EXPLAINING = ("sources", "features", "contributions")


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
@click.option(
    "--ranking", type=click.Choice([str(r) for r in Ranking]),
    help="Order by content, by evidence (what people did), or by both combined, which is the default.",
)  # fmt: skip
@click.option("--surface", default="", help="Where the answer will be shown, such as product-page.")
@click.option("--request-id", default="", metavar="ID", help="Names the look-up: the same draws the same.")
@click.option("--no-exploration", is_flag=True, help="Answer with the best that is known, and draw nothing.")
@click.option("--pin", "pinned_ids", multiple=True, metavar="ID", help="Stands first, in the order given.")
@click.option("--popular-if-unknown", is_flag=True, help="Show what is popular where the index has no such item.")
@click.option(
    "--explain", is_flag=True,
    help="Show of each neighbour who named it, its features that are not 0 and what they add; and what was moved.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@data_option
def similar(
    item_id: str | None,
    text: str | None,
    k: int,
    retrieval: str,
    ranking: str | None,
    surface: str,
    request_id: str,
    no_exploration: bool,
    pinned_ids: tuple[str, ...],
    popular_if_unknown: bool,
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
    comparable within one answer only, and from before pins, diversity and the draw, which may have moved items.
    """
    if (item_id is None) == (text is None):
        raise click.UsageError("give an item's ID or --text, one of the two")
    from nearkin.client.lookup import BlockingLookupClient

    wanted = ItemFilter(
        availability=tuple(Availability(one) for one in availability),
        category_prefix=category_prefix or (),
        **conditions,
    )
    with BlockingLookupClient.by_settings(target(data)) as lookups:
        found = lookups.similar(
            item_id=item_id,
            content=None if text is None else Content(title=text),
            k=k,
            filter=wanted,
            retrieval=Retrieval(retrieval),
            explain=explain,
            ranking=None if ranking is None else Ranking(ranking),
            request_id=request_id,
            surface=surface,
            no_exploration=no_exploration,
            pinned_ids=pinned_ids,
            popular_if_unknown=popular_if_unknown,
        )
    if as_json:
        click.echo(json.dumps(_as_json(found, explain=explain)))
        return
    console = terminal()
    if not found.neighbours:
        console.print("no item is similar under these conditions")
    elif explain:
        console.print(explained(found.neighbours))
    else:
        console.print(_listed(found.neighbours))
    if found.moved:
        console.print(moves(found.moved))
    if found.neighbours:
        console.print(RELATIVE_SCORES, style="dim", highlight=False)
    _show_origin(console, found)


def _as_json(found: "SimilarItems", *, explain: bool) -> dict[str, Any]:
    """All of the answer that was asked for."""
    answer = asdict(found)
    if not explain:
        for neighbour in answer["neighbours"]:
            for part in _EXPLAINING:
                del neighbour[part]
    return answer


def _listed(neighbours: "tuple[Neighbour, ...]") -> Table:
    table = Table("", "id", "score", "title")
    for rank, one in enumerate(neighbours, 1):
        table.add_row(str(rank), printable(one.id), f"{one.score:.4f}", printable(one.title))
    return table


def _show_origin(console: Console, found: "SimilarItems") -> None:
    """What the answer rests on, and what it had to do without."""
    if found.degraded:
        without = ", ".join(found.degraded)
        console.print(f"answered without: {without}", style="yellow", markup=False, highlight=False)
    parts = [f"from {found.collection}, bundle {found.bundle}"] if found.collection else []
    parts += [f"ranked by {found.ranking}"] if found.ranking else []
    parts += [f"draw: {found.draw}"] if found.draw else []
    parts += [f"request {found.request_id}"] if found.request_id else []
    console.print("; ".join(parts), style="dim", markup=False, highlight=False)
