"""docs/contracts.md tells every reason and every limit, and no other."""

import re
from collections import Counter
from pathlib import Path

import pytest

from nearkin.contracts import limits
from nearkin.contracts.topics import DAY_MS, FEEDBACK, VISITS, Topic
from nearkin.contracts.wire import REMEDIES
from nearkin.core.item import MAX_VERSION

PAGE = (Path(__file__).parents[2] / "docs" / "contracts.md").read_text()

#: Reasons that are not the contract's: the encoder's, and the worker's for what nobody foresaw.
LATER = ["nothing_to_encode", "internal"]


def rows(section: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    text = PAGE.split(f"## {section}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_every_reason_is_explained() -> None:
    assert [row[0].strip("` ") for row in rows("Dead letters")] == [*REMEDIES, *LATER]


def test_every_limit_is_told() -> None:
    told = Counter(
        int(number.replace(",", ""))
        for _, most in rows("Limits")
        for number in re.findall(r"[\d,]*\d", most.replace("1 to ", ""))
    )
    kept = Counter(value for name, value in vars(limits).items() if name.startswith("MAX_"))
    times = Counter([limits.MAX_OCCURRED_AT, limits.MAX_LATENESS_MS, limits.MAX_AHEAD_MS])
    assert told == kept - times + Counter([MAX_VERSION])


def test_how_late_and_how_early_feedback_may_be_is_told() -> None:
    days, minutes = limits.MAX_LATENESS_MS / DAY_MS, limits.MAX_AHEAD_MS / 60_000
    assert f"more than {days:g} days behind" in PAGE
    assert f"more than {minutes:g} minutes ahead" in PAGE
    assert f"within {days:g} days" in REMEDIES["too_late"]
    assert f"by {minutes:g} minutes" in REMEDIES["in_future"]


@pytest.mark.parametrize("topic", [FEEDBACK, VISITS])
def test_feedback_is_not_too_late_while_it_or_its_dead_letter_is_kept(topic: Topic) -> None:
    assert topic.dead_letters.retention_ms < limits.MAX_LATENESS_MS
