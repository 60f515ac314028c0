"""How figures are reported: what was asked beside what was measured, and in JSON the machine that they come from.

A benchmark that answers something that is asked of Nearkin gives it as bars. `conclude` prints them as one table, the
same for all benchmarks, leaves them under "bars" in the JSON, and says with which status the program ends.
"""

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

#: Packages whose version may change a figure.
PACKAGES = ("numpy", "onnxruntime", "tokenizers", "qdrant-client", "qdrant-edge-py", "faust-streaming", "grpcio")

#: The columns of `Bar.row`.
BAR_COLUMNS = ("what", "measured", "must", "goal", "met")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A figure, and what is asked of it.

    Attributes:
        what: the figure's name.
        measured: None where the run measured nothing.
        must: what has to be reached now; None where the figure is only reported.
        goal: what to aim at; None where there is no more to reach.
        unit: of all three.
        at_least: whether more is better; else less is.
        note: what the figure means, where its name alone does not say it.
    """

    what: str
    measured: float | None
    must: float | None = None
    goal: float | None = None
    unit: str = ""
    at_least: bool = False
    note: str = ""

    @property
    def missed(self) -> bool:
        """Whether it has to be reached and is not."""
        return self._reaches(self.must) is False

    def row(self) -> tuple[str, ...]:
        """What stands in a table, by `BAR_COLUMNS`."""
        sign = "≥ " if self.at_least else "≤ "
        measured = self._show(self.measured) or "nothing"
        must, goal = ("" if bound is None else sign + self._show(bound) for bound in (self.must, self.goal))
        return self.what, measured, must or "reported", goal, self._verdict()

    def as_json(self) -> dict[str, object]:
        """For a results file."""
        return {**asdict(self), "met": self._reaches(self.must), "goal_met": self._reaches(self.goal)}

    def _reaches(self, bound: float | None) -> bool | None:
        if bound is None:
            return None
        if self.measured is None:
            return False
        return self.measured >= bound if self.at_least else self.measured <= bound

    def _show(self, value: float | None) -> str:
        return "" if value is None else f"{value:.5g} {self.unit}".rstrip()

    def _verdict(self) -> str:
        if self.missed:
            return "NO"
        if self._reaches(self.goal):
            return "yes" if self.must is None else "yes, the goal too"
        if self.must is not None:
            return "yes"
        return "" if self.goal is None else "not the goal"


def percentile_bars(
    what: str, latency: Mapping[str, float], must: Mapping[str, float], goal: Mapping[str, float]
) -> list[Bar]:
    """A bar for each percentile that something is asked of.

    Args:
        what: whose milliseconds these are.
        latency: percentiles by name, such as "p99"; what is missing was not measured.
        must: by the same names.
        goal: by the same names.
    """
    return [
        Bar(what=f"{what}, {name}", measured=latency.get(name), must=bound, goal=goal.get(name), unit="ms")
        for name, bound in must.items()
    ]


def conclude(figures: Mapping[str, object], bars: Sequence[Bar], results: Path | None) -> int:
    """Print what was asked beside what was measured, and leave everything in JSON.

    Args:
        figures: all that was measured.
        bars: what of it answers what is asked; none where nothing is asked.
        results: where the JSON goes, which also names the machine; nowhere where it is None.

    Returns:
        The program's exit status: 1 where something that must be reached was missed.
    """
    if bars:
        print_table("what is asked", BAR_COLUMNS, [bar.row() for bar in bars])
        for bar in bars:
            if bar.note:
                print(f"{bar.what}: {bar.note}")
    if results:
        results.parent.mkdir(parents=True, exist_ok=True)
        everything = {"machine": describe_machine(), **figures, "bars": [bar.as_json() for bar in bars]}
        results.write_text(json.dumps(everything, indent=1) + "\n")
    return 1 if any(bar.missed for bar in bars) else 0


def read_bars(results: Path) -> list[Bar]:
    """The bars of a file that `conclude` left."""
    return msgspec.convert(json.loads(results.read_text())["bars"], list[Bar])


def describe_machine() -> dict[str, object]:
    """What a figure depends on beside the code: processor, cores, Python and the packages."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = set(fields.get("flags", "").split())
    return {
        "processor": fields.get("model name", platform.processor()),
        "cores": len(os.sched_getaffinity(0)),
        "vnni": bool(flags & {"avx512_vnni", "avx_vnni"}),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table that is not cut, whatever the terminal's width."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=160).print(table)
