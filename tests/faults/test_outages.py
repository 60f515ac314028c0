"""An engine that is away, from the start or in the middle: services wait, say so, and lose nothing."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.item_stream import make_stream, reference, require_exactly, upsert
from faults.running_parts import Part, Parts
from nearkin.client.lookup import LookupClient
from nearkin.core.errors import TemporaryError
from nearkin.core.ports import ContentEncoder
from waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def parts(tmp_path: Path, toxiproxy: Path, broker: str, request: pytest.FixtureRequest) -> Iterator[Parts]:
    """With links to their engines that a test cuts."""
    jars = request.getfixturevalue("apache_kafka") if broker == "Apache Kafka" else None
    with Parts(tmp_path / "parts", jars, toxiproxy=toxiproxy) as running:
        yield running


def test_services_that_start_before_their_engines_wait_say_so_and_begin_when_these_are_there(
    parts: Parts, encoder: ContentEncoder, seed: int
) -> None:
    stream = make_stream(seed, items=60)
    parts.start(parts.live, parts.lookup, ready=False)
    _until_told(parts.live, "index")
    until(lambda: parts.lookup.waits_for("index"), "the look-up says that it waits for the index")
    parts.start(parts.index)
    _until_told(parts.live, "broker")
    until(lambda: not parts.live.waits_for("index"), "the indexer has its index")
    parts.start(parts.broker)
    parts.streams.publish(stream)
    until(lambda: parts.live.is_ready and parts.lookup.is_ready, "both are ready")
    parts.streams.until_drained("live")
    parts.look_inside(lambda items: require_exactly(items, reference(stream), encoder))


def _shut_index(parts: Parts) -> None:
    for link in parts.links_to("index"):
        link.refuse()


def _open_index(parts: Parts) -> None:
    for link in parts.links_to("index"):
        link.mend()


def _pause_index(parts: Parts) -> None:
    parts.index.pause()


def _resume_index(parts: Parts) -> None:
    parts.index.resume()


def _kill_index(parts: Parts) -> None:
    parts.index.kill()


def _start_index(parts: Parts) -> None:
    parts.start(parts.index)


@pytest.mark.parametrize(
    ("take_away", "bring_back"),
    [
        pytest.param(_shut_index, _open_index, id="its port is closed"),
        pytest.param(_pause_index, _resume_index, id="it is paused"),
        pytest.param(_kill_index, _start_index, id="it is killed and started again"),
    ],
)
def test_an_index_that_goes_away_is_waited_for_and_nothing_is_acknowledged_meanwhile(
    parts: Parts,
    encoder: ContentEncoder,
    seed: int,
    take_away: Callable[[Parts], None],
    bring_back: Callable[[Parts], None],
) -> None:
    stream = make_stream(seed, items=150)
    half = len(stream) // 2
    parts.start(parts.broker, parts.index)
    parts.start(parts.live, parts.lookup)
    parts.streams.publish(stream[:half])
    parts.streams.until_drained("live")
    acknowledged = parts.streams.committed("live")

    take_away(parts)
    parts.streams.publish(stream[half:])
    _until_told(parts.live, "index")
    assert parts.live.waits_for("engine")
    until(lambda: parts.lookup.waits_for("index"), "the look-up says that it waits for the index")
    assert asyncio.run(_refusal(parts)), "a look-up without an index"
    assert parts.streams.committed("live") == acknowledged

    bring_back(parts)
    parts.streams.until_drained("live")
    until(lambda: parts.live.is_ready and parts.lookup.is_ready, "both are ready again")
    parts.look_inside(lambda items: require_exactly(items, reference(stream), encoder))


def test_an_index_without_disk_space_takes_nothing_more_and_goes_on_once_there_is_space(
    parts: Parts, encoder: ContentEncoder, seed: int
) -> None:
    stream = make_stream(seed, items=100)
    half = len(stream) // 2
    parts.start(parts.broker, parts.index)
    parts.start(parts.live, parts.lookup)
    parts.streams.publish(stream[:half])
    parts.streams.until_drained("live")
    acknowledged = parts.streams.committed("live")

    parts.index.stop()
    parts.index.options = ("--min-free-mib", str(2**30))
    parts.start(parts.index)
    until(lambda: parts.lookup.is_ready, "look-ups are served from what is there")
    parts.streams.publish(stream[half:])
    until(lambda: "no space left on its disk" in parts.live.waits_for("engine"), "the indexer says what is wrong")
    assert parts.streams.committed("live") == acknowledged

    parts.index.stop()
    parts.index.options = ()
    parts.start(parts.index)
    parts.streams.until_drained("live")
    until(lambda: parts.live.is_ready, "the indexer is ready again")
    parts.look_inside(lambda items: require_exactly(items, reference(stream), encoder))


def _shut_broker(parts: Parts) -> None:
    for link in parts.links_to("broker"):
        link.refuse()


def _open_broker(parts: Parts) -> None:
    for link in parts.links_to("broker"):
        link.mend()


def _pause_broker(parts: Parts) -> None:
    parts.broker.pause()


def _resume_broker(parts: Parts) -> None:
    parts.broker.resume()


@pytest.mark.parametrize(
    ("take_away", "bring_back"),
    [
        pytest.param(_shut_broker, _open_broker, id="its port is closed"),
        pytest.param(_pause_broker, _resume_broker, id="it is paused"),
    ],
)
def test_a_broker_that_goes_away_under_load_and_comes_back_costs_nothing_but_time(
    parts: Parts,
    encoder: ContentEncoder,
    seed: int,
    take_away: Callable[[Parts], None],
    bring_back: Callable[[Parts], None],
) -> None:
    """Longer than a session of the group lasts."""
    stream = make_stream(seed, items=400)
    parts.start(parts.broker, parts.index)
    parts.start(parts.live)
    parts.streams.publish(stream[: len(stream) // 2])
    parts.streams.close()
    take_away(parts)
    _until_told(parts.live, "broker")
    time.sleep(8)
    bring_back(parts)
    parts.streams.publish(stream[len(stream) // 2 :])
    parts.streams.until_drained("live")
    until(lambda: parts.live.is_ready, "the indexer is ready again")
    parts.look_inside(lambda items: require_exactly(items, reference(stream), encoder))


def _until_told(part: Part, engine: str) -> None:
    """Wait until a part tells everywhere that an engine is away: /ready, /metrics and its log."""
    until(lambda: part.waits_for(engine) or part.waits_for("engine"), f"/ready of {part.name} names the {engine}")
    until(lambda: part.counted("retries_total", engine=engine), f"/metrics of {part.name} count the {engine}")
    until(
        lambda: any(line.get("engine") == engine for line in part.told()), f"the log of {part.name} names the {engine}"
    )


async def _refusal(parts: Parts) -> str:
    async with LookupClient(parts.lookup_address) as lookups:
        with pytest.raises(TemporaryError) as refused:
            await lookups.similar(content=upsert("any", "a mug").state.content, timeout_s=20)
    return str(refused.value)
