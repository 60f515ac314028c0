"""What `nearkin status` knows: everything is asked anew, of the broker and the parts themselves.

So it holds while the monitor is dead. Only of probes the monitor alone knows, as it alone publishes them; what it says
of them is old when it is dead, and not taken then.
"""

import asyncio
import contextlib
import http.client
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from prometheus_client.parser import text_string_to_metric_families

from nearkin.core.errors import NearkinError
from nearkin.core.ports import IndexCounts
from nearkin.monitor.count_points import count_points
from nearkin.monitor.read_dead_letters import ReadDeadLetters
from nearkin.monitor.read_lag import LANES, BrokerSide, Oldest, Waiting, read_heads
from nearkin.monitor.watch_parts import ASK_S, Ask, asked, asking, engines_of, says_ready
from nearkin.ops.addresses import split_parts
from nearkin.ops.settings import Settings
from nearkin.stores import qdrant

T = TypeVar("T")

#: How long the broker may take to say what waits, in seconds.
ALL_S = 2 * ASK_S


@dataclass(frozen=True, slots=True)
class Part:
    """One part.

    Attributes:
        name: how people call it.
        problem: what is wrong with it; empty where it answers.
        version: of Nearkin that it runs; empty where it is no service, or does not say.
    """

    name: str
    problem: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Lane:
    """What waits in one lane.

    Attributes:
        name: its name.
        topic: its topic.
        group: who serves it.
        oldest_s: the age of the oldest event that waits; 0 where none does.
        waiting: how many events wait, by partition.
    """

    name: str
    topic: str
    group: str
    oldest_s: float
    waiting: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Probes:
    """What the monitor says of its probes, counted since it started.

    Attributes:
        last_at_s: when one was last seen to come and to go, in seconds since the epoch; 0 before.
        visible_s: how long the last one took to be found; None before.
        gone_s: how long it took to be gone.
        outcomes: how many were proved, late and failed.
    """

    last_at_s: float
    visible_s: float | None
    gone_s: float | None
    outcomes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Status:
    """How the whole is, at one moment.

    Attributes:
        at_s: that moment, in seconds since the epoch.
        parts: every part.
        lanes: every lane whose topic is there; none where the broker cannot be asked.
        index: what the index holds, without probes; None where it cannot be asked.
        dead_letters: open ones by topic and reason, among the newest; None where the broker cannot be asked.
        probes: None where the monitor does not answer.
        problem: what is wrong beside the parts; empty where nothing is.
    """

    at_s: float
    parts: tuple[Part, ...]
    lanes: tuple[Lane, ...]
    index: IndexCounts | None
    dead_letters: Mapping[tuple[str, str], int] | None
    probes: Probes | None
    problem: str

    @property
    def is_healthy(self) -> bool:
        """Whether every part answers, and probes are proved."""
        return not self.problem and not any(part.problem for part in self.parts)


class ReadStatus:
    """Reads it again and again over the same connections.

    Args:
        settings: where everything is.
        asks: how to ask each part but the broker and the monitor.
    """

    def __init__(self, settings: Settings, asks: Mapping[str, Ask]) -> None:
        self._settings, self._asks = settings, asks
        self._addresses = split_parts(settings.monitor_parts)
        self._broker = BrokerSide(settings.kafka_bootstrap, settings.kafka_security)
        self._letters, self._oldest = ReadDeadLetters(self._broker), Oldest()
        self._index = qdrant.connect(settings)

    async def __call__(self) -> Status:
        """How it is now."""
        at_s = time.time()
        asks = dict(self._asks)
        if "monitor" in self._addresses:
            asks["monitor"] = partial(asyncio.to_thread, says_ready, self._addresses["monitor"])
        (problem, waiting, letters), index, said = await asyncio.gather(
            self._ask_broker(),
            _or_none(count_points(self._index)),
            asyncio.gather(*(self._ask_part(name, ask) for name, ask in asks.items())),
        )
        engines = engines_of(self._settings)
        parts = [Part("broker", problem)] * ("broker" in engines) + [part for part, _ in said]
        metrics = {part.name: samples for part, samples in said}
        probes = _probes(metrics["monitor"]) if metrics.get("monitor") else None
        return Status(
            at_s, tuple(parts), _lanes(waiting, self._oldest.ages()) if not problem else (), index, letters, probes,
            _stale(probes, at_s, self._settings),
        )  # fmt: skip

    async def close(self) -> None:
        """Disconnect."""
        await self._broker.close()
        await self._index.close()

    async def _ask_broker(self) -> tuple[str, list[Waiting], Mapping[tuple[str, str], int] | None]:
        try:
            async with asyncio.timeout(ALL_S):
                waiting = await self._broker.read_lag()
                await read_heads(self._broker, self._oldest, self._oldest.see(waiting))
        except NearkinError as error:
            return str(error), [], None
        except TimeoutError:
            return f"no answer within {ALL_S:g} s", [], None
        # Many large letters take longer to read than anybody waits: a broker that gives them is not down.
        return "", waiting, await _or_none(self._letters())

    async def _ask_part(self, name: str, ask: Ask) -> "tuple[Part, Samples]":
        address = self._addresses.get(name, "")
        problem, samples = await asyncio.gather(
            asked(ask), asyncio.to_thread(read_metrics, address) if address else _nothing()
        )
        version = next((dict(labels)["version"] for name_, labels in samples if name_ == "nearkin_build_info"), "")
        return Part(name, problem, version), samples


@contextlib.asynccontextmanager
async def reading(settings: Settings) -> AsyncIterator[ReadStatus]:
    """What reads the status of whatever the settings name.

    Raises:
        Misconfigured: a file of TLS or an address cannot be used.
    """
    # Who is asked once and is away is away: nobody waits for it for long.
    index_s, redis_s = min(ASK_S, settings.index_timeout_s), min(ASK_S, settings.redis_timeout_s)
    quick = settings.model_copy(update={"index_timeout_s": index_s, "redis_timeout_s": redis_s})
    async with asking(quick) as asks:
        read = ReadStatus(quick, asks)
        try:
            yield read
        finally:
            await read.close()


#: Samples of metrics by name and labels.
Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def read_metrics(address: str) -> Samples:
    """What a process serves under /metrics; nothing where it does not answer."""
    connection = http.client.HTTPConnection(address, timeout=ASK_S)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    except (OSError, http.client.HTTPException, ValueError):
        return {}
    finally:
        connection.close()


def _lanes(waiting: list[Waiting], ages: Mapping[str, float]) -> tuple[Lane, ...]:
    counts: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
    for one in waiting:
        topic, partition = one.place
        counts[topic, one.group][partition] = one.count
    order = list(LANES)
    return tuple(
        Lane(LANES[topic], topic, group, ages[LANES[topic]], dict(sorted(by_partition.items())))
        for (topic, group), by_partition in sorted(counts.items(), key=lambda one: order.index(one[0][0]))
    )


def _probes(samples: Samples) -> Probes:
    def value(name: str, **labels: str) -> float | None:
        return samples.get((f"nearkin_monitor_{name}", frozenset(labels.items())))

    return Probes(
        value("last_probe_timestamp_seconds") or 0.0,
        value("last_probe_seconds", step="visible"),
        value("last_probe_seconds", step="gone"),
        {one: int(value("probes_total", outcome=one) or 0) for one in ("proved", "late", "failed")},
    )


def _stale(probes: Probes | None, at_s: float, settings: Settings) -> str:
    """What is wrong with probes: that none was seen to come and to go for longer than three of them may take."""
    if probes is None or not settings.probe_every_s or not sum(probes.outcomes.values()):
        return ""
    allowed_s = 3 * (settings.probe_every_s + 2 * settings.probe_late_s)
    if at_s - probes.last_at_s <= allowed_s:
        return ""
    since = f"for {at_s - probes.last_at_s:.0f} s" if probes.last_at_s else "since the monitor started"
    return f"no probe item was found and gone again {since}"


async def _nothing() -> Samples:
    return {}


async def _or_none(reading: Awaitable[T]) -> T | None:
    try:
        async with asyncio.timeout(ASK_S):
            return await reading
    except (NearkinError, TimeoutError):
        return None
