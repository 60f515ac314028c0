"""The second half of `nearkin demo`: real purchases become evidence, and the same anchors are looked up again.

What is right for an anchor is what was bought with it from `CUT` on; nothing of that time is published. To stay within
the demonstration's time only the invoices of the two months before are replayed, of 2 to 50 different products, and a
part of the anchors is asked; `nearkin evaluate online-retail` takes all of them.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from nearkin.cli.evaluate import score_rankings, with_interval
from nearkin.cli.printable import printable
from nearkin.core.retrieval import Ranking

if TYPE_CHECKING:
    from nearkin.client.lookup import LookupClient
    from nearkin.learning.dataset import Dataset
    from nearkin.learning.score import Score
    from nearkin.ops.settings import Settings

#: The first moment that is asked about.
CUT = datetime(2011, 10, 1, tzinfo=UTC)

#: Which invoices are replayed: from this day on, of so many products.
FROM, LEAST, LARGEST = datetime(2011, 8, 1, tzinfo=UTC), 2, 50

#: Every so manieth of the anchors that sold before is asked, and so many of them are shown, with so many neighbours.
ONE_IN, SHOWN, NEIGHBOURS = 5, 3, 5

K = 10


@dataclass(frozen=True, slots=True)
class Beside:
    """The neighbours of one anchor before and after the purchases.

    Attributes:
        id: the anchor.
        title: its title.
        before: the titles of its neighbours by content, the best first, each with whether it was bought with it later.
        after: the same by content and purchases.
    """

    id: str
    title: str
    before: tuple[tuple[str, bool], ...]
    after: tuple[tuple[str, bool], ...]


@dataclass(frozen=True, slots=True)
class Purchases:
    """What the purchases changed.

    Attributes:
        invoices: how many were replayed.
        of: how many there are before the cut.
        replay_s: seconds until all of them counted.
        look_ups: how many were made, and
        look_ups_s: how long they took.
        scores: of each ranking against content alone.
        shown: some anchors.
    """

    invoices: int
    of: int
    replay_s: float
    look_ups: int
    look_ups_s: float
    scores: "Mapping[Ranking, Sequence[Score]]"
    shown: tuple[Beside, ...] = field(default_factory=tuple)


async def replay_purchases(
    settings: "Settings", lookups: "LookupClient", dataset: "Dataset", progress: Progress
) -> Purchases:
    """Look anchors up, replay the purchases, and look the same anchors up again.

    Args:
        settings: where the stack is.
        lookups: its look-up service, which has all items.
        dataset: what was bought before the cut, and what is right for the anchors.
        progress: is told how far it is.
    """
    from nearkin.cli.answer_anchors import answer_anchors
    from nearkin.cli.replay_visits import replay_visits

    everything = dataset.evaluation
    visits = [one for one in everything.training if one.at >= FROM and LEAST <= len(one.items) <= LARGEST]
    anchors = everything.truth.slices["warm"][::ONE_IN]
    evaluation = replace(everything, truth=replace(everything.truth, slices={"sold before": anchors}))
    asking = progress.add_task("look-ups before and after", total=3 * len(anchors))

    async def ask(ranking: Ranking) -> dict[str, list[str]]:
        return await answer_anchors(lookups, anchors, ranking, K, lambda count: progress.advance(asking, count))

    began = time.perf_counter()
    runs = {Ranking.CONTENT: await ask(Ranking.CONTENT)}
    asked_s = time.perf_counter() - began
    task = progress.add_task(f"{len(visits)} invoices from {FROM.date()} to {CUT.date()}", total=len(visits))
    began = time.perf_counter()
    await replay_visits(settings, visits, lambda sent: progress.update(task, completed=sent))
    replay_s = time.perf_counter() - began
    began = time.perf_counter()
    runs |= {ranking: await ask(ranking) for ranking in (Ranking.EVIDENCE, Ranking.COMBINED)}
    asked_s += time.perf_counter() - began

    titles = {str(line.fields["id"]): str(line.fields["title"]) for line in dataset.items}
    popularity, positives = everything.truth.popularity, everything.truth.positives

    def named(ranking: Ranking, anchor: str) -> tuple[tuple[str, bool], ...]:
        return tuple((titles[one], one in positives[anchor]) for one in runs[ranking][anchor][:NEIGHBOURS])

    best_sold = sorted(anchors, key=lambda one: (-popularity[one], one))[:SHOWN]
    return Purchases(
        invoices=len(visits),
        of=len(everything.training),
        replay_s=replay_s,
        look_ups=sum(map(len, runs.values())),
        look_ups_s=asked_s,
        scores=await asyncio.to_thread(score_rankings, runs, evaluation, Ranking.CONTENT, K),
        shown=tuple(
            Beside(one, titles[one], named(Ranking.CONTENT, one), named(Ranking.COMBINED, one)) for one in best_sold
        ),
    )


def show_purchases(console: Console, purchases: Purchases) -> None:
    """What the purchases changed, for a person."""
    console.print(
        f"\n{purchases.invoices} of {purchases.of} invoices from before {CUT.date()} became evidence in "
        f"{purchases.replay_s:.1f} s: those from {FROM.date()} on, of {LEAST} to {LARGEST} products. ✓ marks what was "
        f"bought with the item from {CUT.date()} on, of which nothing was published.", highlight=False,
    )  # fmt: skip
    for one in purchases.shown:
        table = Table(
            "", "by content, before", "", "with purchases, after", title=printable(f"{one.title} ({one.id})"),
            title_justify="left",
        )  # fmt: skip
        for place in range(max(len(one.before), len(one.after))):
            row: list[str | Text] = []
            for side in (one.before, one.after):
                name, bought = side[place] if place < len(side) else ("", False)
                row += ["✓" if bought else "", printable(name)]
            table.add_row(*row)
        console.print(table)
    scores = {(str(ranking), one.metric): one for ranking, measured in purchases.scores.items() for one in measured}
    metrics = (f"Recall@{K}", f"NDCG@{K}", f"Coverage@{K}")
    anchors = scores[str(Ranking.CONTENT), metrics[0]].anchors
    title = f"{anchors} anchors that had sold before, held against what was bought later"
    table = Table("ranking", *metrics, f"gain in {metrics[0]}, 95%", title=title, title_justify="left")
    for ranking in (Ranking.CONTENT, Ranking.EVIDENCE, Ranking.COMBINED):
        found = [scores[str(ranking), metric] for metric in metrics]
        means = [format(one.value if isinstance(one.value, float) else one.value.mean, ".3f") for one in found]
        gain = found[0].difference
        table.add_row(_NAMES[ranking], *means, "" if gain is None else with_interval(gain, "+.3f"))
    console.print(table)
    console.print(
        f"{purchases.look_ups} look-ups in {purchases.look_ups_s:.1f} s. All invoices and all anchors, new ones too: "
        "nearkin evaluate online-retail", style="dim", markup=False, highlight=False,
    )  # fmt: skip


_NAMES = {
    Ranking.CONTENT: "content alone",
    Ranking.EVIDENCE: "evidence alone",
    Ranking.COMBINED: "both",
}
