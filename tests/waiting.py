"""How a test waits for what nothing announces."""

import time
from collections.abc import Callable
from typing import TypeVar

#: Longer than anything takes on a machine that does other things too: whoever waits so long, waits for nothing.
HUNG_S = 100.0

T = TypeVar("T")


def until(holds: Callable[[], T], what: str, timeout_s: float = HUNG_S, every_s: float = 0.1) -> T:
    """Wait until something holds; what it gave."""
    deadline = time.monotonic() + timeout_s
    while not (value := holds()):
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain: {what}"
        time.sleep(every_s)
    return value
