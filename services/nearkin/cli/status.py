"""`nearkin status`: how every part is, how far the lanes are behind, what the index holds, and how fresh probes are."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

import nearkin
from nearkin.cli.printable import printable
from nearkin.cli.target import data_option, stack_that_serves, target
from nearkin.cli.terminal import terminal

if TYPE_CHECKING:
    from nearkin.cli.read_status import Lane, Status
    from nearkin.ops.settings import Settings

#: What the process exits with where something is down: as for everything that is unavailable.
DOWN = 3


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch one line for each look.")
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option(
    "--every", "every_s", type=click.FloatRange(0.2, 3600), default=2.0, show_default=True, metavar="SECONDS",
    help="How often --watch looks.",
)  # fmt: skip
@data_option
def status(as_json: bool, watch: bool, every_s: float, data: Path | None) -> None:
    """Show how every part is, and how fresh the index.

    Tells health, version, lag, dead letters, what the index holds, and the last probe.

    Everything is asked of the broker and the parts themselves, so it holds while the monitor is dead. On engines
    elsewhere NEARKIN_MONITOR_PARTS names the services, NEARKIN_MONITOR_ENGINES the engines. Exits with 0 where every
    part answers and probe items are found, and with 3 where something is down; after --watch, as the last look was.
    """
    settings = target(data)
    for library in ("aiokafka", "grpc"):  # what they log of a part that is away stands in the table
        logging.getLogger(library).addHandler(logging.NullHandler())
        logging.getLogger(library).propagate = False
    if not settings.monitor_parts and stack_that_serves("broker", click.get_current_context()) is None:
        click.echo(
            f"no `nearkin up` runs on {settings.up_data}, and NEARKIN_MONITOR_PARTS names no services: only the "
            "engines are asked, by their settings",
            err=True,
        )
    healthy = True

    async def look() -> None:
        nonlocal healthy
        console = terminal()
        # Closed here, whatever ends it: a reader that is gone, too.
        async with aclosing(_looks(settings, every_s, forever=watch)) as looks:
            if not watch or as_json or not console.is_terminal:
                async for now in looks:
                    healthy = now.is_healthy
                    if as_json:
                        click.echo(json.dumps(as_fields(now), indent=None if watch else 1))
                    else:
                        console.print(as_tables(now))
                return
            with Live(console=console, auto_refresh=False) as live:
                async for now in looks:
                    healthy = now.is_healthy
                    live.update(as_tables(now), refresh=True)

    try:
        asyncio.run(look())
    except KeyboardInterrupt:
        if not watch:
            raise
    if not healthy:
        raise click.exceptions.Exit(DOWN)


async def _looks(settings: "Settings", every_s: float, *, forever: bool) -> "AsyncGenerator[Status, None]":
    from nearkin.cli.read_status import reading

    async with reading(settings) as read:
        while True:
            yield await read()
            if not forever:
                return
            await asyncio.sleep(every_s)


def as_fields(now: "Status") -> dict[str, Any]:
    """A status as --json prints it."""
    probes = now.probes
    return {
        "healthy": now.is_healthy,
        "problem": now.problem,
        "at": _time(now.at_s),
        "version": nearkin.__version__,
        "parts": [
            {"name": part.name, "up": not part.problem, "version": part.version or None, "problem": part.problem}
            for part in now.parts
        ],
        "lanes": [
            {
                "lane": lane.name,
                "topic": lane.topic,
                "group": lane.group,
                "oldest_s": round(lane.oldest_s, 3),
                "waiting": sum(lane.waiting.values()),
                "partitions": {str(partition): count for partition, count in lane.waiting.items()},
            }
            for lane in now.lanes
        ],
        "index": {"items": now.index.points, "tombstones": now.index.tombstones} if now.index else None,
        "dead_letters": None
        if now.dead_letters is None
        else [
            {"topic": topic, "reason": reason, "count": count}
            for (topic, reason), count in sorted(now.dead_letters.items())
            if count
        ],
        "probes": probes
        and {
            "last_at": _time(probes.last_at_s) if probes.last_at_s else None,
            "visible_s": probes.visible_s,
            "gone_s": probes.gone_s,
            **probes.outcomes,
        },
    }


def as_tables(now: "Status") -> Group:
    """A status as a person reads it."""
    parts = Table("part", "health", "version", "what is wrong", title="Parts", title_justify="left")
    for part in now.parts:
        health = Text("down", "bold red") if part.problem else Text("up", "green")
        parts.add_row(printable(part.name), health, printable(part.version), printable(part.problem))
    lanes = Table("lane", "topic", "waiting", "by partition", "oldest waits", title="Lag", title_justify="left")
    for lane in now.lanes:
        lanes.add_row(lane.name, lane.topic, str(sum(lane.waiting.values())), _by_partition(lane), _age(lane.oldest_s))
    lines = [
        "" if now.lanes else f"lag cannot be told: {_no_lanes(now)}",
        f"index: {now.index.points} items, {now.index.tombstones} tombstones"
        if now.index
        else "index: it cannot be asked",
        f"dead letters: {_letters(now)}",
        f"probes: {_probed(now)}",
    ]
    verdict = Text("healthy", "bold green") if now.is_healthy else Text(now.problem or "something is down", "bold red")
    said = [printable(line) for line in lines if line]
    return Group(parts, *([lanes] if now.lanes else []), *said, verdict)


def _no_lanes(now: "Status") -> str:
    # Dead letters are asked of the same broker, so it answered where they can be told.
    return "the broker does not answer" if now.dead_letters is None else "the broker has none of the topics"


def _by_partition(lane: "Lane") -> str:
    """The partitions in which anything waits."""
    return " ".join(f"{partition}:{count}" for partition, count in lane.waiting.items() if count) or "-"


def _age(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds else "-"


def _letters(now: "Status") -> str:
    from nearkin.monitor.read_dead_letters import NEWEST

    if now.dead_letters is None:
        return "they cannot be told"
    some = [f"{count} {reason} in {topic}" for (topic, reason), count in sorted(now.dead_letters.items()) if count]
    return f"{', '.join(some)} (of the newest {NEWEST:,} records of each partition)" if some else "none"


def _probed(now: "Status") -> str:
    probes = now.probes
    if probes is None:
        named = any(part.name == "monitor" for part in now.parts)
        return "the monitor does not answer" if named else "NEARKIN_MONITOR_PARTS names no monitor"
    counts = ", ".join(f"{count} {outcome}" for outcome, count in probes.outcomes.items())
    if not probes.last_at_s or probes.visible_s is None or probes.gone_s is None:
        return f"none was found yet ({counts})"
    return (
        f"the last one {now.at_s - probes.last_at_s:.0f} s ago was found after {1000 * probes.visible_s:.0f} ms and "
        f"gone after {1000 * probes.gone_s:.0f} ms ({counts})"
    )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
