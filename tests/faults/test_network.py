"""Links that are cut or slow while everything runs: what waits says so, nothing is lost, and it mends by itself.

Each client has links of its own, so that a worker may be cut off from its broker while its producers and its index are
not: the worst case, because others think it dead and it thinks itself alive. A link is cut in two ways: refused at
once, as where a process is gone, or swallowed without a word, as where a cable is.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

from faults.chaos import Chaos, rounds, run_chaos
from faults.item_stream import upsert
from faults.running_parts import Parts
from nearkin.client.lookup import LookupClient
from nearkin.contracts.topics import ITEMS
from nearkin.core.errors import TemporaryError
from nearkin.core.ports import ContentEncoder
from waiting import HUNG_S, until

#: Cuts in `.ci/run`; `make chaos` has every one of them at least once.
CUTS = rounds(6)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + 60 * CUTS)]

#: Who talks to whom.
PAIRS = [
    ("indexer-live", "broker"),
    ("indexer-live", "index"),
    ("feedback", "broker"),
    ("feedback", "redis"),
    ("lookup", "index"),
    ("lookup", "redis"),
    ("lookup", "broker"),
    ("client", "lookup"),
    ("monitor", "broker"),
    ("monitor", "index"),
    ("monitor", "redis"),
    ("monitor", "lookup"),
]

#: What the monitor asks.
ENGINES = ("broker", "index", "redis", "lookup")

#: What look-ups begin from.
ANCHOR = upsert("anchor", "a lamp to look up")


@pytest.fixture
def chaos(
    tmp_path: Path,
    toxiproxy: Path,
    seed: int,
    request: pytest.FixtureRequest,
    apache_kafka: Path,
    encoder: ContentEncoder,
) -> Iterator[Chaos]:
    """On Apache Kafka, which can tell each client an address of its own to come to."""
    with Parts(tmp_path / "parts", apache_kafka, toxiproxy=toxiproxy) as parts:
        yield from run_chaos(parts, seed, request.node.name, encoder, parts.index, parts.live, parts.lookup)


def test_a_link_that_is_cut_costs_nothing_but_time_and_is_told_by_who_needs_it(chaos: Chaos) -> None:
    parts = chaos.parts
    services = [parts.live, parts.feedback, parts.lookup, parts.monitor]
    parts.start(parts.feedback, parts.monitor)
    _publish_anchor(chaos)
    cuts = [(pair, how) for pair in PAIRS for how in ("refuse", "swallow")]
    chaos.draw.shuffle(cuts)
    with chaos.load(), Asking(parts) as asking:
        for (client, server), how in (cuts * (CUTS // len(cuts) + 1))[:CUTS]:
            link, told = parts.links[client, server], _telling(parts, asking, client, server)
            chaos.note(f"{client} cannot reach the {server}: {how}")
            getattr(link, how)()
            until(told, f"{client} tells that it cannot reach the {server}")
            chaos.sleep(8)  # a session of a group lasts 6 s
            since = chaos.begin(f"{client} can reach the {server} again")
            link.mend()
            chaos.require_recovery(since, *services)
            asking.require_answer()
            until(lambda: all(_is_up(parts, part) for part in ENGINES), "the monitor reaches everything")
    assert parts.monitor.stop() == 0  # with its probes
    parts.streams.look_at_ends(ITEMS)
    chaos.require_exact()
    assert all(part.runs for part in services[:-1])


def test_links_that_are_slow_make_everything_later_and_nothing_else(chaos: Chaos) -> None:
    """The two that every item and every look-up waits for: what the indexer fetches, and what searches find."""
    parts = chaos.parts
    services = [parts.live, parts.feedback, parts.lookup]
    parts.start(parts.feedback)
    _publish_anchor(chaos)
    with chaos.load(), Asking(parts) as asking:
        for _ in range(max(1, CUTS // 10)):
            since = chaos.begin(
                "100 ms more, give or take 50, between indexer and broker and between look-up and index"
            )
            slow = [parts.links["indexer-live", "broker"], parts.links["lookup", "index"]]
            for link in slow:
                link.delay(100, jitter_ms=50)
            chaos.require_recovery(since, *services)
            time.sleep(10)
            assert all(part.is_ready for part in services)
            asking.require_answer()
            since = chaos.begin("no delay any more")
            for link in slow:
                link.mend()
            chaos.require_recovery(since, *services)
    chaos.require_exact()


def _publish_anchor(chaos: Chaos) -> None:
    assert chaos.items is not None
    chaos.parts.streams.publish([ANCHOR])
    chaos.items.until_found(ANCHOR.state.id)


class Asking:
    """Look-ups all the time, over the clients' link; those that fail must fail as temporary.

    Args:
        parts: what runs.

    Attributes:
        answered: how many were.
        refused: how many were not.
    """

    def __init__(self, parts: Parts) -> None:
        self._address = parts.lookup_address
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._ask()), name="look-ups")
        self._failed: list[BaseException] = []
        self.answered = self.refused = 0

    def require_answer(self) -> None:
        """Wait until look-ups are answered."""
        before = self.answered
        until(lambda: self.answered > before or self._failed, "look-ups are answered")
        assert not self._failed, f"a look-up failed for good: {self._failed[0]!r}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(HUNG_S)
        assert not self._failed, f"a look-up failed for good: {self._failed[0]!r}"

    async def _ask(self) -> None:
        try:
            async with LookupClient(self._address) as lookups:
                while not self._stopped.is_set():
                    try:
                        await lookups.similar(item_id=ANCHOR.state.id, timeout_s=2)
                        self.answered += 1
                    except TemporaryError:
                        self.refused += 1
                    await asyncio.sleep(0.05)
        except BaseException as error:  # told at the end
            self._failed.append(error)


def _telling(parts: Parts, asking: Asking, client: str, server: str) -> Callable[[], object]:
    """What shows that a client tells of a cut: from now on, as some of it is counted."""
    part = {"indexer-live": parts.live, "feedback": parts.feedback}.get(client, parts.lookup)
    if client == "monitor":
        assert _is_up(parts, server)
        return lambda: not _is_up(parts, server)
    if client == "client":
        refused = asking.refused
        return lambda: asking.refused > refused
    if client == "lookup" and server in ("index", "redis"):
        # It may answer from what it remembers, and stays ready then.
        engine = {"index": "index", "redis": "evidence"}[server]
        failed = part.counted("engine_failures_total", engine=engine)
        return lambda: part.waits_for(engine) or part.counted("engine_failures_total", engine=engine) > failed
    if (client, server) == ("lookup", "broker"):
        return lambda: part.counted("lookup_log_waiting_items") > 0
    if server == "broker":
        return lambda: part.waits_for("broker")
    return lambda: part.waits_for("engine")


def _is_up(parts: Parts, part: str) -> bool:
    """Whether the monitor says that something answers."""
    return parts.monitor.counted("monitor_part_up", part=part) == 1
