"""From the README every page is found, and `make bench` runs every measurement."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PROGRAMS = [path for path in (ROOT / "benchmarks").glob("*.py") if '"--json"' in path.read_text()]


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_a_page_is_linked_from_the_readme(page):
    assert f"](docs/{page}" in README


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)[)#]", README))))
def test_what_the_readme_links_to_is_there(link):
    assert (ROOT / link).exists()


@pytest.mark.parametrize("program", sorted(path.stem for path in PROGRAMS if path.stem != "__main__"))
def test_make_bench_runs_a_measurement(program):
    assert f'    "{program}",\n' in (ROOT / "benchmarks" / "__main__.py").read_text()
