"""The command `nearkin`: each error becomes one line that says what to do, and an exit code that says what it was.

Exit codes: 0 done, 1 a defect, 2 wrong usage or configuration, 3 something is unavailable, 4 input was refused or not
found, 130 interrupted, 141 nobody reads the output any more. Only a defect shows a traceback.
"""

import contextlib
import logging
import shlex
import sys
from collections.abc import Iterator
from typing import Any

import click

import nearkin
from nearkin.cli.bundle import bundle
from nearkin.cli.bundle_export import export
from nearkin.cli.delete import delete
from nearkin.cli.demo import demo
from nearkin.cli.dlq import dlq
from nearkin.cli.evaluate import evaluate
from nearkin.cli.evidence import evidence
from nearkin.cli.fit import fit
from nearkin.cli.item import item
from nearkin.cli.priors import priors
from nearkin.cli.publish import publish
from nearkin.cli.replay import replay
from nearkin.cli.score import score
from nearkin.cli.similar import similar
from nearkin.cli.split import split
from nearkin.cli.status import status
from nearkin.cli.target import stack_that_serves
from nearkin.cli.terminal import end_unread
from nearkin.cli.topics import topics
from nearkin.cli.up import up
from nearkin.core.errors import Misconfigured, NearkinError, PermanentError, Unavailable

INTERRUPTED = 130


class Told(click.ClickException):
    """An error of Nearkin's own, as a person reads it and a script sees it."""

    def __init__(self, error: NearkinError, context: click.Context) -> None:
        self.exit_code = exit_code(error)
        super().__init__(f"{error}{_hint(error, context)}")


def exit_code(error: NearkinError) -> int:
    """What the process exits with."""
    if isinstance(error, Misconfigured):
        return 2
    return 4 if isinstance(error, PermanentError) else 3


def _hint(error: NearkinError, context: click.Context) -> str:
    if not isinstance(error, Unavailable):
        return ""
    setting = {
        "broker": "NEARKIN_KAFKA_BOOTSTRAP",
        "look-up service": "NEARKIN_LOOKUP_ADDRESS",
        "evidence": "NEARKIN_REDIS_URL",
    }.get(error.engine)
    if setting is None:
        return ""
    if folder := stack_that_serves(error.engine, context):
        return (
            f"; `nearkin up` runs on {folder} and may be starting this part again: try again in some seconds, or read "
            f"{folder / 'logs'}"
        )
    return f"; start `nearkin up`, or name its folder with --data or another service with {setting}"


class Commands(click.Group):
    """Turns the errors of commands into lines and exit codes."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """Read the command line; --help and --version are answered here."""
        with _while_somebody_reads():
            return super().make_context(*arguments, **options)

    def invoke(self, context: click.Context) -> Any:
        """Run the command that was chosen."""
        # What kafka-python logs while it retries would stand around the one line that says what to do.
        logging.getLogger("kafka").addHandler(logging.NullHandler())
        try:
            with _while_somebody_reads():
                return super().invoke(context)
        except NearkinError as error:
            raise Told(error, context) from error
        except ModuleNotFoundError as missing:  # installed without extras, to publish and look up
            if missing.name is None or missing.name.partition(".")[0] == "nearkin":
                raise
            needs = Misconfigured(
                f"this command needs {missing.name}, which is not installed",
                field="nearkin",
                remedy=f"run `{shlex.quote(sys.executable)} -m pip install -e '.[embedded,learn]'` in the clone that "
                "Nearkin was installed from: these extras have what every command needs",
                reason="not_installed",
            )
            raise Told(needs, context) from missing
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None


@contextlib.contextmanager
def _while_somebody_reads() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        end_unread()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(nearkin.__version__, prog_name="nearkin")
def main() -> None:
    """Find the items that are similar to an item, a moment after it was published.

    Start with `nearkin demo`, or with `nearkin up` in one terminal and the other commands in another: they find the
    running stack through its folder (.nearkin, or --data, or NEARKIN_UP_DATA). NEARKIN_KAFKA_BOOTSTRAP and
    NEARKIN_LOOKUP_ADDRESS name services elsewhere.

    \b
    Exit codes: 0 done, 1 a defect, 2 wrong usage or configuration, 3 something is unavailable,
    4 input was refused or not found, 130 interrupted, 141 nobody reads the output.
    """  # noqa: D301  # click reads \b


bundle.add_command(export)
for command in (
    demo,
    up,
    status,
    publish,
    delete,
    similar,
    replay,
    item,
    evidence,
    priors,
    dlq,
    topics,
    bundle,
    split,
    fit,
    score,
    evaluate,
):
    main.add_command(command)
