"""What the README tells of the demonstration's second half is what it does."""

from pathlib import Path

import pytest
from rich.console import Console

from nearkin.cli.evaluate import read_shipped
from nearkin.cli.replay_purchases import CUT, FROM, LARGEST, LEAST, ONE_IN, Beside, Purchases, show_purchases
from nearkin.core.retrieval import Ranking
from nearkin.learning.score import Interval, Score

README = " ".join((Path(__file__).parents[2] / "README.md").read_text().split())


@pytest.fixture(scope="module")
def evaluation():
    return read_shipped(CUT).evaluation


def test_the_readme_says_which_invoices_are_replayed_and_how_many_items_are_looked_up(evaluation):
    chosen = [one for one in evaluation.training if one.at >= FROM and LEAST <= len(one.items) <= LARGEST]
    assert (FROM.month, CUT.month) == (8, 10)
    assert f"those of {LEAST} to {LARGEST} products, {len(chosen):,} of the {len(evaluation.training):,}" in README
    assert f"it looks {len(evaluation.truth.slices['warm'][::ONE_IN])} items up by content alone" in README


def test_nothing_of_the_asked_time_is_replayed(evaluation):
    assert all(one.at < CUT for one in evaluation.training)


def test_a_person_sees_the_same_anchor_before_and_after_and_what_was_bought_on_a_narrow_terminal(capsys):
    def scores(*means: float) -> list[Score]:
        names = ("Recall@10", "NDCG@10")
        found = [Score("sold before", name, 9, Interval(mean, 0, 1), Interval(0, 0, 1), Interval(mean, 0.1, 0.3))
                 for name, mean in zip(names, means, strict=True)]  # fmt: skip
        return [*found, Score("sold before", "Coverage@10", 9, 0.25, 0.25, 0.0)]

    shown = Beside("mug-1", "Red mug", (("Blue mug", False), ("Red cup", True)), (("Red saucer", True),))
    measured = {
        Ranking.CONTENT: scores(0.3, 0.4),
        Ranking.EVIDENCE: scores(0.2, 0.3),
        Ranking.COMBINED: scores(0.5, 0.6),
    }
    show_purchases(Console(width=80), Purchases(2, 5, 1.0, 27, 0.5, measured, (shown,)))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert rows[:2] == [["", "Blue mug", "✓", "Red saucer"], ["✓", "Red cup", "", ""]]
    assert rows[-1] == ["both", "0.500", "0.600", "0.250", "+0.500 [+0.100, +0.300]"]
