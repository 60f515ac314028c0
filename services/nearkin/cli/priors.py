"""`nearkin priors`: what a position brings on each surface, as it is learned from the stream."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.table import Table

from nearkin.cli.printable import printable
from nearkin.cli.target import data_option, target
from nearkin.cli.terminal import terminal
from nearkin.core.position_priors import Method, PositionPriors, Prior
from nearkin.ops.settings import Settings

_MEANING = {
    Method.DEFAULT: "too few clicks: the default curve",
    Method.SCALED: "too few clicks to tell positions apart: the default curve, with as many clicks as there were",
    Method.CLICK_MODEL: "from pairs that stood at several positions",
    Method.RANDOMISED: "from the randomised share, weighted by 1 / propensity",
}


@click.command()
@click.argument("surface", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@data_option
def priors(surface: str | None, as_json: bool, data: Path | None) -> None:
    """Show what clicks an exposure at each position should bring.

    With 95% intervals.

    Shows every surface that is known, or the one that is named; one that is not known has the default.
    """
    found = asyncio.run(_read(target(data)))
    names = [surface] if surface is not None else sorted(found.surfaces)
    if as_json:
        click.echo(json.dumps(_described(found, names), indent=1))
        return
    console = terminal()
    learned = f", learned {_time(found.at_ms)}" if found.version else ": the default for every surface"
    console.print(f"version {found.version}{learned}", highlight=False, markup=False)
    for name in names:
        known = found.surfaces.get(name)
        method = known.method if known is not None else Method.DEFAULT
        counted = f"; {known.exposures:,.0f} exposures and {known.clicks:,.0f} clicks, decayed" if known else ""
        console.print(f"\n{printable(name)}: {_MEANING[method]}{counted}", highlight=False, markup=False)
        table = Table("position", "prior", "interval", "against the first")
        positions = _positions(found, name)
        for number, prior in enumerate(positions, 1):
            interval = f"{prior.low:.4f} to {prior.high:.4f}" if prior.low is not None else ""
            table.add_row(str(number), f"{prior.value:.4f}", interval, f"{prior.value / positions[0].value:.2f}")
        console.print(table)


async def _read(settings: Settings) -> PositionPriors:
    from nearkin.stores.evidence import connect, rules_of

    store = connect(settings, rules_of(settings))
    try:
        return await store.read_priors()
    finally:
        await store.close()


def _positions(found: PositionPriors, surface: str) -> tuple[Prior, ...]:
    """What was learned; where that is nothing, the first ten of the default curve."""
    known = found.surfaces.get(surface)
    if known is not None and known.positions:
        return known.positions
    return tuple(Prior(prior) for prior in found.curve(surface)[:10])


def _described(found: PositionPriors, names: list[str]) -> dict[str, object]:
    described = []
    for name in names:
        known = found.surfaces.get(name)
        described.append(
            {
                "surface": name,
                "method": (known.method if known is not None else Method.DEFAULT).value,
                "exposures": known.exposures if known is not None else 0.0,
                "clicks": known.clicks if known is not None else 0.0,
                "positions": [
                    {"position": number, "prior": prior.value, "low": prior.low, "high": prior.high}
                    for number, prior in enumerate(_positions(found, name), 1)
                ],
            }
        )
    return {
        "version": found.version,
        "learned_at": _time(found.at_ms) if found.version else None,
        "surfaces": described,
    }


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds")
