"""How a running stack looks on the terminal."""

import time

from rich.console import Console
from rich.table import Table

from nearkin.embedded.endpoints import Endpoints


class Reporter:
    """Prints what happens to the programs of a stack.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def report(self, program: str, what: str) -> None:
        """Tell what happened to a program."""
        now = time.strftime("%H:%M:%S")
        self._console.print(f"{now} {program}: {what}", highlight=False, markup=False, style="dim")

    def echo(self, program: str, line: str) -> None:
        """Show a line that a program wrote."""
        self._console.print(f"{program:>13} | {line}", highlight=False, markup=False, soft_wrap=True)


def endpoints_table(endpoints: Endpoints) -> Table:
    """Where everything listens."""
    table = Table("service", "address")
    table.add_row("Kafka (items, feedback, visits)", endpoints.kafka)
    table.add_row("look-ups (gRPC)", endpoints.lookup)
    table.add_row("index (Qdrant's gRPC)", endpoints.qdrant)
    if endpoints.redis:
        table.add_row("Redis", endpoints.redis)
    for name, address in endpoints.metrics.items():
        table.add_row(f"metrics and health of {name}", f"http://{address}/metrics")
    return table
