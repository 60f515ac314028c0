"""`make bench`: every measurement, one after another; readable tables here, JSON in benchmarks/results.

python -m benchmarks [NAME ...]
"""

import subprocess
import sys
import time
from pathlib import Path

#: In this order; each is a program of its own, so that one that fails takes no other with it.
MEASUREMENTS = ("encoding", "index", "lookups", "freshness", "lanes", "quality")

RESULTS = Path(__file__).parent / "results"


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in MEASUREMENTS]
    if unknown:
        print(f"there is no measurement {', '.join(unknown)}; there are {', '.join(MEASUREMENTS)}", file=sys.stderr)
        return 2
    failed = []
    for name in names or MEASUREMENTS:
        result = RESULTS / f"{time.strftime('%Y-%m-%d')}-{name}.json"
        print(f"\n== {name} -> {result}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--json", str(result)], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
