"""The command `nearkin`: each error becomes one line that says what to do, and an exit code that says what it was.

Exit codes: 0 done, 1 a defect, 2 wrong usage or configuration, 3 something is unavailable, 4 input was refused or not
found, 130 interrupted. Only a defect shows a traceback.
"""

import logging
from typing import Any

import click

import nearkin
from nearkin.cli.delete import delete
from nearkin.cli.demo import demo
from nearkin.cli.item import item
from nearkin.cli.publish import publish
from nearkin.cli.similar import similar
from nearkin.cli.topics import topics
from nearkin.cli.up import up
from nearkin.core.errors import Misconfigured, NearkinError, PermanentError, Unavailable

INTERRUPTED = 130


class Told(click.ClickException):
    """An error of Nearkin's own, as a person reads it and a script sees it."""

    def __init__(self, error: NearkinError) -> None:
        self.exit_code = exit_code(error)
        super().__init__(f"{error}{_hint(error)}")


def exit_code(error: NearkinError) -> int:
    """What the process exits with."""
    if isinstance(error, Misconfigured):
        return 2
    return 4 if isinstance(error, PermanentError) else 3


def _hint(error: NearkinError) -> str:
    if not isinstance(error, Unavailable):
        return ""
    setting = {"broker": "NEARKIN_KAFKA_BOOTSTRAP", "look-up service": "NEARKIN_LOOKUP_ADDRESS"}.get(error.engine)
    if setting is None:
        return ""
    return f"; start `nearkin up`, or name its folder with --data or another service with {setting}"


class Commands(click.Group):
    """Turns the errors of commands into lines and exit codes."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command that was chosen."""
        # What kafka-python logs while it retries would stand around the one line that says what to do.
        logging.getLogger("kafka").addHandler(logging.NullHandler())
        try:
            return super().invoke(context)
        except NearkinError as error:
            raise Told(error) from error
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(nearkin.__version__, prog_name="nearkin")
def main() -> None:
    """Find the items that are similar to an item, a moment after it was published.

    Start with `nearkin demo`, or with `nearkin up` in one terminal and the other commands in another: they find the
    running stack through its folder (.nearkin, or --data, or NEARKIN_UP_DATA). NEARKIN_KAFKA_BOOTSTRAP and
    NEARKIN_LOOKUP_ADDRESS name services elsewhere.

    \b
    Exit codes: 0 done, 1 a defect, 2 wrong usage or configuration, 3 something is unavailable,
    4 input was refused or not found, 130 interrupted.
    """  # noqa: D301  # click reads \b


for command in (demo, up, publish, delete, similar, item, topics):
    main.add_command(command)
