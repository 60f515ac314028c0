"""What was refused under one key, and not settled: of an item's id, an anchor's of feedback, a visit's."""

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console

from nearkin.cli.find_letters import Wanted, find_letters
from nearkin.cli.printable import printable
from nearkin.ops.kafka_security import PLAINTEXT, KafkaSecurity
from nearkin.ops.letters import Letter

#: How many of the newest records are read, and for how long: it stands beside what the command is for.
RECORDS, SECONDS = 40_000, 5.0


def find_refusals(
    bootstrap: str, key: str, timeout_s: float = 3.0, security: KafkaSecurity = PLAINTEXT
) -> list[Letter]:
    """What was refused under a key, oldest first.

    Raises:
        Unavailable: the broker does not answer.
    """
    wanted = Wanted(keys=frozenset([key.encode(errors="surrogateescape")]))
    return find_letters(
        bootstrap, wanted, records=RECORDS, seconds=SECONDS, timeout_s=timeout_s, security=security
    ).letters


def refusals_as_json(refusals: Sequence[Letter]) -> list[dict[str, str]]:
    """Refusals as commands print them with --json."""
    return [
        {
            "letter": str(one.id),
            "reason": one.reason,
            "field": one.field,
            "problem": one.problem,
            "remedy": one.remedy,
            "at": told_time(one.at_ms),
            "origin": one.origin,
        }
        for one in refusals
    ]


def show_refusals(console: Console, refusals: Sequence[Letter]) -> None:
    """Print refusals, a line for each."""
    for one in refusals:
        where = f"{one.field}: " if one.field else ""
        remedy = f"; {one.remedy}" if one.remedy else ""
        line = f"refused at {told_time(one.at_ms)} ({one.reason}): {where}{one.problem}{remedy} — from {one.origin}"
        console.print(printable(line), style="yellow", highlight=False)


def told_time(ms: int) -> str:
    """A time in milliseconds since the epoch, for a person."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
