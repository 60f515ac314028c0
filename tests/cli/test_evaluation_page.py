import json
import re
from pathlib import Path

from nearkin.learning.item_to_item import COLUMNS, LARGEST_VISIT, MIN_LIFT, MIN_TOGETHER, SAMPLE, WARM
from nearkin.learning.run_file import read_run
from nearkin.learning.score import DRAWS

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
BLOCKS = {
    name: [line.strip() for line in lines.strip().splitlines()]
    for name, lines in re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
}


def test_the_commands_of_the_page_run(nearkin, tmp_path):
    assert BLOCKS["csv"][0].split(",") == list(COLUMNS)
    visits = [("2011-09-01", "ab")] * 10 + [("2011-10-02", "ab"), ("2011-11-01", "cd"), ("2011-11-02", "ef")] * 3
    lines = [f"{number},{item},{day}" for number, (day, held) in enumerate(visits) for item in held]
    (tmp_path / "purchases.csv").write_text("\n".join([BLOCKS["csv"][0], *lines]) + "\n")
    (tmp_path / "baseline.run").write_text("a Q0 c 1 1 baseline\n")
    (tmp_path / "better.jsonl").write_text('{"anchor": "a", "items": ["b"]}\n')
    commands = [line.split()[1:] for line in BLOCKS["sh"] if line.startswith("nearkin ")]
    assert len(commands) == 3
    for command in commands:
        result = nearkin(*command)
        assert result.exit_code == 0, result.output
    for metric in re.findall(r"^\| (\w+)@k \|", PAGE, re.MULTILINE):
        assert f"{metric}@10" in result.output
    for file in re.findall(r"^\| `(\S+)` \|", PAGE, re.MULTILINE):
        assert (tmp_path / "shop" / file).exists()


def test_both_forms_of_a_run_are_read_as_the_page_shows_them(tmp_path):
    (tmp_path / "x.jsonl").write_text("\n".join(BLOCKS["json"]))
    (tmp_path / "x.run").write_text("\n".join(BLOCKS["trec"]))
    run = {"85123A": ["71053", "84406B"]}
    assert read_run(tmp_path / "x.jsonl") == read_run(tmp_path / "x.run") == run
    assert json.loads(BLOCKS["json"][0])["anchor"] == "85123A"


def test_the_page_says_the_bounds_that_the_code_has():
    for said in (
        f"at least {MIN_TOGETHER} visits",
        f"lift of at least {MIN_LIFT:g}",
        f"2 to {LARGEST_VISIT} different items",
        f"at least {WARM} visits before the cut",
        f"At most {SAMPLE} a slice",
        f"{DRAWS:,} times",
    ):
        assert said in PAGE
