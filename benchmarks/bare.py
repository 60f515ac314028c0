"""A service without its instruments, to hold against it as it is: nothing is counted, timed, logged or traced.

python -m benchmarks.bare nearkin.lookup
"""

import logging
import runpy
import sys
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from nearkin.ops.metrics import Metrics

#: What is done with them, and is not done here.
INSTRUMENTS: dict[type, tuple[str, ...]] = {
    Counter: ("inc",),
    Gauge: ("set", "inc", "dec"),
    Histogram: ("observe",),
    Metrics: ("age", "evidence_age"),
}


def nothing(*_: object, **__: object) -> None:
    """What an instrument does here."""


def itself(metric: Any, *_: object, **__: object) -> Any:
    """A metric that has no labels."""
    return metric


def main(module: str) -> None:
    for kind, deeds in INSTRUMENTS.items():
        for deed in deeds:
            setattr(kind, deed, nothing)
    for each in (Counter, Gauge, Histogram):
        each.labels = itself  # type: ignore[method-assign, assignment]  # whatever the labels are
    logging.disable(logging.CRITICAL)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1])
