"""An index that is slow, refuses, fails or is full, under load: it is told, nothing is lost, and items are fresh again.

The indexer waits between its tries as long as it does in production: how soon it is back is what is measured.
"""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faults.chaos import Chaos, rounds, run_chaos
from faults.failing_index import FailingIndex
from faults.running_parts import Part, Parts
from nearkin.core.ports import ContentEncoder
from nearkin.embedded.index_owner import MIN_FREE_MIB
from nearkin.ops.settings import Settings
from waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + 60 * rounds(0))]

#: How long a fault lasts, in seconds: long enough for the longest pause between two tries.
LASTS_S = 8.0

#: The pause between two tries as it is in production.
PATIENT = {"NEARKIN_RETRY_MAX_MS": str(Settings.model_fields["retry_max_ms"].default)}

#: One item's write may take no longer when the index is well: only a service that hangs is slower.
SLOW_MS = 2000


@pytest.fixture
def chaos(
    tmp_path: Path, toxiproxy: Path, seed: int, request: pytest.FixtureRequest, encoder: ContentEncoder
) -> Iterator[Chaos]:
    with Parts(tmp_path / "parts", toxiproxy=toxiproxy) as parts:
        yield from run_chaos(parts, seed, request.node.name, encoder, parts.index)


def test_an_index_that_takes_two_seconds_for_each_call_delays_items_and_loses_none(chaos: Chaos) -> None:
    parts, indexer = chaos.parts, _start(chaos)
    links = parts.links_to("index")
    for _ in range(_times()):
        with chaos.load():
            chaos.sleep(2)
            chaos.note(f"every answer of the index comes {SLOW_MS} ms later")
            for link in links:
                link.delay(SLOW_MS)
            until(lambda: indexer.counted("waiting_events") > 0, "/metrics tell of events that wait")
            until(lambda: _slow_calls(indexer) > 1, "/metrics tell of slow calls")
            time.sleep(LASTS_S)
            assert indexer.is_ready
            since = chaos.begin("it is as fast as before")
            for link in links:
                link.mend()
            chaos.require_recovery(since, indexer, parts.lookup, parts.feedback)
    chaos.require_exact()


def test_an_index_that_refuses_connections_is_tried_again_and_told(chaos: Chaos) -> None:
    parts, indexer = chaos.parts, _start(chaos)
    links = parts.links_to("index")
    for _ in range(_times()):
        with chaos.load():
            chaos.sleep(2)
            chaos.note("the index refuses connections")
            for link in links:
                link.refuse()
            _until_told(indexer)
            time.sleep(LASTS_S)
            since = chaos.begin("it takes them")
            for link in links:
                link.mend()
            chaos.require_recovery(since, indexer, parts.lookup, parts.feedback)
    chaos.require_exact()


def test_an_index_that_fails_one_write_in_ten_makes_them_late_and_loses_none(chaos: Chaos) -> None:
    """Half of the failed writes have been applied, and nobody can know which."""
    parts = chaos.parts
    with FailingIndex(parts.qdrant_url.removeprefix("http://"), 0.1, chaos.draw.randrange(10**6)) as failing:
        indexer = _start(chaos, NEARKIN_QDRANT_URL=f"http://{failing.address}")
        with chaos.load():
            until(lambda: failing.failed > 10 * _times(), "writes fail")
            _until_told(indexer)
            since = chaos.begin("no write fails any more")
            failing.mend()
            chaos.require_recovery(since, indexer, parts.lookup, parts.feedback)
        chaos.require_exact()
        assert indexer.counted("retries_total", engine="index") >= failing.failed


def test_a_disk_that_is_full_stops_writes_until_there_is_space(chaos: Chaos) -> None:
    """A real one, small enough to fill: first beyond what the index wants to keep free, then to its last byte."""
    parts = chaos.parts
    parts.index.stop()
    with _small_disk(parts.folder / "index", MIN_FREE_MIB + 128) as disk:
        parts.start(parts.index)
        indexer = _start(chaos)
        for leave_mib in [MIN_FREE_MIB // 2, 0] * ((_times() + 1) // 2):
            with chaos.load():
                chaos.sleep(2)
                chaos.note(f"the index's disk has {leave_mib} MiB left")
                _fill(disk, leave_mib)
                until(lambda: "no space left on its disk" in indexer.waits_for("engine"), "/ready says what is wrong")
                _until_told(indexer)
                assert parts.lookup.is_ready, "what is there is served"
                time.sleep(LASTS_S)
                since = chaos.begin("there is space")
                (disk / "filler").unlink()
                chaos.require_recovery(since, indexer, parts.lookup, parts.feedback)
            assert parts.index.runs
        chaos.require_exact()
        parts.index.stop()


def _times() -> int:
    """How often a fault comes in one test."""
    return max(1, rounds(1) // 10)


def _start(chaos: Chaos, **environment: str) -> Part:
    """Start the services, the indexer with the pauses of production; the indexer."""
    parts = chaos.parts
    indexer = parts.indexer("live", "indexer-patient", **{**PATIENT, **environment})
    parts.start(indexer, parts.lookup, parts.feedback)
    return indexer


def _until_told(indexer: Part) -> None:
    """Wait until an indexer tells of trouble with its index, in /metrics and its log; /ready comes and goes."""
    until(lambda: indexer.counted("retries_total", engine="index"), "/metrics count the tries")
    until(lambda: any(line.get("engine") == "index" for line in indexer.told()), "the log names the index")


def _slow_calls(indexer: Part) -> float:
    """Reads of the index that took longer than any should."""
    every = indexer.counted("index_read_seconds_count")
    return every - indexer.counted("index_read_seconds_bucket", le="1.0")


@contextmanager
def _small_disk(folder: Path, mib: int) -> Iterator[Path]:
    """A disk of its own in place of a folder, with what was in it."""
    kept = folder.with_name("kept")
    folder.rename(kept)
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "none", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here, as root can in most places: {mounted.stderr.strip()}")
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(disk: Path, leave_mib: int) -> None:
    """Leave so much of a disk free, and no more."""
    size = shutil.disk_usage(disk).free - leave_mib * 2**20
    with (disk / "filler").open("wb") as filler:
        for _ in range(size // 2**20):
            filler.write(bytes(2**20))
        filler.flush()
