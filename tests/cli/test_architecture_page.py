"""docs/architecture.md names every module in its folder's paragraph, and nothing that is not there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = ROOT / "services" / "nearkin"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
FOLDERS = sorted(path.name for path in CODE.iterdir() if (path / "__init__.py").exists())
PARAGRAPHS = dict(re.findall(r"^- \*\*`(\w+)/`\*\*(.*?)(?=^- |^## )", PAGE, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folders_paragraph_names_its_modules(folder):
    modules = {path.name for path in (CODE / folder).glob("*.py") if not path.name.startswith("__")}
    assert set(re.findall(r"`(\w+\.py)`", PARAGRAPHS[folder])) == modules


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(\w+/\w+\.py)`", PAGE))))
def test_the_ways_of_events_go_through_files_that_are_there(path):
    assert (CODE / path).exists()
