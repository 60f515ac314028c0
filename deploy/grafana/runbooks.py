"""The runbooks of docs/operations.md as a dashboard, so that an alert's link works wherever Grafana does."""

import re
from pathlib import Path

from deploy.grafana.panels import RUNBOOKS, Board
from deploy.prometheus.alerts import ALERTS

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def read_runbooks(page: str) -> dict[str, str]:
    """The sections below "Runbooks" by their headings, as Markdown."""
    section = re.split(r"^## ", page.partition("\n## Runbooks\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    parts = re.split(r"^### (.+)$", section, flags=re.MULTILINE)[1:]
    return {heading.strip(): content.strip() for heading, content in zip(parts[::2], parts[1::2], strict=True)}


def runbooks_board() -> Board:
    """A panel for each alert, in their order.

    Raises:
        KeyError: an alert has no runbook.
    """
    written = read_runbooks(PAGE.read_text(encoding="utf-8"))
    return Board(
        RUNBOOKS,
        "Nearkin: runbooks",
        "What each alert means, how to see it, what to do, and when it clears: from docs/operations.md.",
        [],
        [],
        [(alert.name, written[alert.name]) for alert in ALERTS],
    )
