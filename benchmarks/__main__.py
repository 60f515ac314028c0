"""`make bench`: every measurement, one after another; readable tables here, JSON in benchmarks/results.

    python -m benchmarks [NAME ...]

Ends with one table of all that is asked. Exits with 1 where something that must be reached was missed, or a measurement
failed.
"""

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.report import BAR_COLUMNS, print_table, read_bars

#: In this order; each is a program of its own, so that one that fails takes no other with it.
MEASUREMENTS = (
    "footprint",
    "encoding",
    "image",
    "index",
    "lookups",
    "freshness",
    "lanes",
    "takeover",
    "poison",
    "reranked",
    "quality",
    "fusion",
    "ranking",
    "ranking_choices",
    "evaluation",
    "evidence",
    "feedback",
    "positions",
    "diversity",
    "exploration",
    "off_policy",
    "restore",
    "overhead",
    "cold_start",
    "overload",
    "backpressure",
    "throughput",
    "monitor",
)

RESULTS = Path(__file__).parent / "results"


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in MEASUREMENTS]
    if unknown:
        print(f"there is no measurement {', '.join(unknown)}; there are {', '.join(MEASUREMENTS)}", file=sys.stderr)
        return 2
    rows: list[tuple[str, ...]] = []
    failed: list[str] = []
    missed: list[str] = []
    for name in names or MEASUREMENTS:
        result = RESULTS / f"{time.strftime('%Y-%m-%d')}-{name}.json"
        print(f"\n== {name} -> {result}", flush=True)
        result.unlink(missing_ok=True)  # so that a file of today says that this run came to its end
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(result)]
        status = subprocess.run(command, check=False).returncode
        bars = read_bars(result) if result.exists() else []
        rows += [(name, *bar.row()) for bar in bars]
        missed += [f"{name}: {bar.what}" for bar in bars if bar.missed]
        if not result.exists() or (status and not any(bar.missed for bar in bars)):
            failed.append(name)
            rows.append((name, f"failed, exit status {status}", "", "", "", "NO"))
        elif not bars:
            rows.append((name, "nothing is asked", "", "", "", ""))
    print()
    print_table("all that is asked", ("measurement", *BAR_COLUMNS), rows)
    if missed:
        print(f"missed: {'; '.join(missed)}", file=sys.stderr)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if missed or failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
