"""What docs/running.md quotes of messages is what the code says."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "running.md").read_text()
REFUSALS = PAGE.split("## When it refuses\n")[1]
SAID = [text for row in re.findall(r"^\| (`.*?) \|", REFUSALS, re.MULTILINE) for text in re.findall("`(.*?)`", row)]
CODE = "\n".join(file.read_text() for file in sorted((ROOT / "services" / "nearkin").rglob("*.py")))


@pytest.mark.parametrize("text", SAID)
def test_a_message_that_the_page_explains_is_one_that_the_code_gives(text):
    assert text in CODE


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)", PAGE))
def test_what_the_page_links_to_is_there(link):
    assert (ROOT / "docs" / link).exists()


def test_the_page_explains_refusals():
    assert len(SAID) >= 10
