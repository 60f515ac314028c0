"""docs/contracts.md tells every reason and every limit, and no other."""

import re
from collections import Counter
from pathlib import Path

from nearkin.contracts import limits
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
    assert told == kept - Counter([limits.MAX_OCCURRED_AT]) + Counter([MAX_VERSION])
