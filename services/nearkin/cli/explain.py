"""Shows why each item of an answer stands where it does, whether it was answered now or logged before."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from nearkin.cli.printable import printable

if TYPE_CHECKING:
    from nearkin.client.lookup import Moved, Neighbour


def explained(neighbours: "Sequence[Neighbour]") -> Table:
    """A paragraph for each neighbour: its lines break where the terminal ends, none is cut."""
    table = Table.grid(padding=(0, 1))
    for rank, one in enumerate(neighbours, 1):
        table.add_row(f"{rank:>3}", Text.assemble((str(printable(one.id)), "bold"), "  ", printable(one.title)))
        chance = f", stands here with probability {one.propensity:.3g}" if one.propensity else ""
        table.add_row("", f"score {one.score:.4f}{chance}")
        sources = ", ".join(f"{source.name} #{source.rank} ({source.score:.3f})" for source in one.sources)
        table.add_row("", f"found by {sources or 'nobody that is told'}")
        if one.features:
            table.add_row("", _weighed(one.features, one.contributions))
        table.add_row("", "")
    return table


def _weighed(features: Mapping[str, float], contributions: Mapping[str, float]) -> str:
    """Of the features that are not 0 what adds to a score, the most first, and what does not.

    Features alone where the weights are not known.
    """
    known = {name: value for name, value in features.items() if value}
    adding = sorted((name for name in known if contributions.get(name)), key=lambda name: -abs(contributions[name]))
    parts = [f"{name} {known[name]:.4g} adds {contributions[name]:+.4f}" for name in adding]
    rest = ", ".join(f"{name} {value:.4g}" for name, value in known.items() if name not in adding)
    if rest:
        parts.append(f"adding nothing: {rest}" if contributions else rest)
    return "; ".join(parts) or "all its features are 0"


def moves(moved: "Sequence[Moved]") -> Table:
    """What was moved, in order."""
    title = "What rules and diversity did"
    table = Table("moved", "by", "from", "to", "because of", title=title, title_justify="left")
    for column in table.columns:
        column.overflow = "fold"  # two long ids need not fit beside each other
    for one in moved:
        now = str(one.rank_after or "taken out")
        table.add_row(printable(one.id), printable(one.by), str(one.rank_before), now, printable(one.because_of))
    return table
