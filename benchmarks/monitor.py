"""What the monitor costs beside a stack that has nothing to do, and what it says of its freshness.

    python -m benchmarks.monitor [--seconds 120] [--json FILE]

The whole stack runs; the processor time of the monitor is read from its own metrics before and after. Its probe items
are its own load: publishing, looking up until found, deleting, looking up until gone, every 10 s.

Exits with 1 where something that must be reached was missed.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import Bar, conclude, print_table
from nearkin.cli.read_status import Samples, read_metrics
from nearkin.embedded.stack import Stack, run_stack

#: What must be reached: of one core.
MUST_SHARE = 0.02

#: After the start, so long what is done once is done, in seconds.
SETTLED_S = 15.0


def main() -> int:
    parser = argparse.ArgumentParser(description="What the monitor costs.")
    parser.add_argument("--seconds", type=float, default=120.0, help="for how long it is measured")
    parser.add_argument("--json", type=Path, help="where the figures go")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nearkin-monitor-") as folder:
        figures = asyncio.run(
            run_stack(Path(folder), lambda stack: measure(stack, chosen.seconds), report=lambda *_: None)
        )
    print_table("the monitor beside an idle stack", ("what", "value"), list(figures.items()))
    bar = Bar(what="monitor, idle stack", measured=figures["processor_share"], must=MUST_SHARE, unit="of a core")
    return conclude(figures, [bar], chosen.json)


async def measure(stack: Stack, seconds: float) -> dict[str, Any]:
    address = stack.endpoints.metrics["monitor"]
    await asyncio.sleep(SETTLED_S)
    before, began = await asyncio.to_thread(read_metrics, address), time.perf_counter()
    await asyncio.sleep(seconds)
    after, took_s = await asyncio.to_thread(read_metrics, address), time.perf_counter() - began

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    probes = {one: grown("nearkin_monitor_probes_total", outcome=one) for one in ("proved", "late", "failed")}
    mean_ms = {
        f"{step}_mean_ms": round(
            1000
            * grown("nearkin_monitor_probe_seconds_sum", step=step)
            / max(1.0, grown("nearkin_monitor_probe_seconds_count", step=step)),
            1,
        )
        for step in ("visible", "gone")
    }
    return {
        "seconds": round(took_s, 1),
        "processor_share": round(grown("process_cpu_seconds_total") / took_s, 4),
        "resident_mb": round(value(after, "process_resident_memory_bytes") / 2**20, 1),
        **probes,
        **mean_ms,
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


if __name__ == "__main__":
    raise SystemExit(main())
