"""`nearkin up`: run the whole of Nearkin on this machine until it is told to stop."""

import asyncio
import contextlib
from pathlib import Path

import click

from nearkin.cli.target import data_option
from nearkin.cli.terminal import terminal
from nearkin.ops.settings import load_settings


@click.command()
@data_option
@click.option("--verbose", "-v", is_flag=True, help="Show what every program writes; it is in DATA/logs anyway.")
def up(data: Path | None, verbose: bool) -> None:
    """Run everything on this machine, until SIGTERM or Ctrl-C.

    Runs broker, Redis, index, indexers, the feedback worker, look-ups and the monitor.

    A program that dies is started again; one that keeps dying stops everything (exit code 3). The index and Redis keep
    their data in the folder over a restart; the broker keeps topics in memory only, so what was published and not yet
    indexed is lost when it ends, and must be published again.

    Everything listens on a free port of this machine, another one at every start; the commands find them through the
    folder. NEARKIN_LOOKUP_LISTEN gives look-ups an address that stays.
    """
    from nearkin.cli.show_stack import Reporter, endpoints_table
    from nearkin.embedded.stack import Stack, StopRequested, run_stack

    settings = load_settings()
    folder = data or settings.up_data
    lookup = settings.lookup_listen if "lookup_listen" in settings.model_fields_set else None
    console = terminal(stderr=True)
    reporter = Reporter(console)

    async def serve(stack: Stack) -> None:
        console.print(endpoints_table(stack.endpoints))
        console.print(
            f"Everything is up; data and logs are in {stack.data}. The index survives a restart; the broker keeps "
            "topics in memory only.\nStop with Ctrl-C.", highlight=False,
        )  # fmt: skip
        await asyncio.Event().wait()

    with contextlib.suppress(StopRequested):
        echo = reporter.echo if verbose else None
        asyncio.run(run_stack(folder, serve, report=reporter.report, echo=echo, lookup_listen=lookup))
    console.print("Everything is stopped.")
