"""`nearkin status` on parts that are made here, on none at all, and on a whole stack whose parts die."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from prometheus_client import CollectorRegistry
from rich.console import Console

from nearkin.cli import read_status
from nearkin.cli.read_status import Lane, Part, Probes, Status
from nearkin.cli.status import as_fields, as_tables
from nearkin.core.ports import IndexCounts
from nearkin.embedded.endpoints import read_endpoints
from nearkin.embedded.programs import free_port
from nearkin.monitor.read_dead_letters import ReadDeadLetters
from nearkin.ops.health import Health, HealthServer
from nearkin.ops.metrics import Metrics
from waiting import until

NEARKIN = [sys.executable, "-m", "nearkin.cli"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("NEARKIN_")}
NOW = 1_800_000_000.0


def made(**changes: object) -> Status:
    whole = {
        "at_s": NOW,
        "parts": (Part("broker"), Part("lookup", version="1.2.3")),
        "lanes": (Lane("live", "items.v1", "nearkin-indexer-live", 2.5, {0: 3, 1: 0, 2: 1}),),
        "index": IndexCounts(points=10, tombstones=2),
        "dead_letters": {("items.v1.dlq", "too_long"): 4, ("items.v1.dlq", "not_json"): 0},
        "probes": Probes(NOW - 7, 0.08, 0.05, {"proved": 9, "late": 1, "failed": 0}),
        "problem": "",
    }
    return Status(**(whole | changes))


def shown(status: Status) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(as_tables(status))
    return capture.get()


def test_all_of_it_is_shown():
    page = shown(made())
    for words in (
        "1.2.3",
        "0:3 2:1",
        "2.5 s",
        "10 items, 2 tombstones",
        "4 too_long in items.v1.dlq",
        "7 s ago",
        "80 ms",
    ):
        assert words in page
    assert "not_json" not in page
    assert page.rstrip().endswith("healthy")


def test_a_part_that_is_down_makes_the_whole_unhealthy_and_what_is_not_known_is_said():
    parts = Part("broker", "nothing answers"), Part("monitor", "nothing answers")
    status = made(parts=parts, lanes=(), index=None, dead_letters=None, probes=None)
    page = shown(status)
    assert not status.is_healthy
    for words in ("down", "nothing answers", "lag cannot be told", "it cannot be asked", "the monitor does not answer"):
        assert words in page
    fields = as_fields(status)
    assert fields["healthy"] is False
    assert (fields["index"], fields["dead_letters"], fields["probes"], fields["lanes"]) == (None, None, None, [])


def test_probes_of_a_monitor_that_nobody_named_are_not_said_to_be_silent():
    page = shown(made(probes=None))
    assert "NEARKIN_MONITOR_PARTS names no monitor" in page
    assert "does not answer" not in page


def test_a_broker_without_topics_is_not_said_to_be_silent():
    page = shown(made(lanes=(), dead_letters={}))
    assert "the broker has none of the topics" in page
    assert "does not answer" not in page


def test_probes_that_are_not_found_make_the_whole_unhealthy_though_every_part_answers():
    assert not made(problem="no probe item was found and gone again for 90 s").is_healthy


def test_what_others_say_neither_styles_nor_steers_the_terminal():
    letters = {("items.v1.dlq", "too\x1b[2Jlong"): 1}
    page = shown(made(parts=(Part("broker", "it says \x1b[31mred"), Part("x", version="[red]1")), dead_letters=letters))
    assert "\x1b[2J" not in page
    assert "\x1b[31m" not in page
    assert "[red]1" in page


def test_json_says_the_same():
    fields = json.loads(json.dumps(as_fields(made())))
    assert fields["parts"][1] == {"name": "lookup", "up": True, "version": "1.2.3", "problem": ""}
    assert fields["lanes"][0]["partitions"] == {"0": 3, "1": 0, "2": 1}
    assert fields["lanes"][0]["waiting"] == 4
    assert fields["dead_letters"] == [{"topic": "items.v1.dlq", "reason": "too_long", "count": 4}]
    assert fields["probes"]["last_at"] == "2027-01-15T07:59:53.000+00:00"


def test_engines_and_services_elsewhere_are_found_by_settings_and_who_is_away_is_down(nearkin, monkeypatch):
    away = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("NEARKIN_KAFKA_BOOTSTRAP", away)
    monkeypatch.setenv("NEARKIN_QDRANT_URL", f"http://{away}")
    monkeypatch.setenv("NEARKIN_LOOKUP_ADDRESS", away)
    monkeypatch.setenv("NEARKIN_MONITOR_ENGINES", "broker,index,lookup")
    metrics = Metrics(CollectorRegistry(), "feedback")
    health = Health(metrics)
    with HealthServer("127.0.0.1:0", health, metrics) as server:
        monkeypatch.setenv("NEARKIN_MONITOR_PARTS", f"feedback={server.address},monitor={away}")
        done = nearkin("status", "--json")
    assert done.exit_code == 3, done.output
    parts = {part["name"]: part for part in json.loads(done.stdout)["parts"]}
    assert [name for name, part in parts.items() if part["up"]] == ["feedback"]
    assert set(parts) == {"broker", "index", "lookup", "feedback", "monitor"}
    assert parts["feedback"]["version"]
    assert all(part["problem"] for name, part in parts.items() if name != "feedback")


def test_where_no_stack_runs_and_no_services_are_named_that_is_told(nearkin, monkeypatch):
    away = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("NEARKIN_LOOKUP_ADDRESS", away)
    monkeypatch.setenv("NEARKIN_KAFKA_BOOTSTRAP", away)
    monkeypatch.setenv("NEARKIN_MONITOR_ENGINES", "lookup")
    done = nearkin("status", "--json")
    assert "no `nearkin up` runs on .nearkin, and NEARKIN_MONITOR_PARTS names no services" in done.stderr
    monkeypatch.setenv("NEARKIN_MONITOR_PARTS", f"monitor={away}")
    assert "no `nearkin up`" not in nearkin("status", "--json").stderr


def test_a_broker_with_more_letters_than_can_be_read_in_time_is_not_down(at_broker, monkeypatch):
    async def read_on_and_on(_: ReadDeadLetters) -> None:
        await asyncio.sleep(600)

    monkeypatch.setattr(ReadDeadLetters, "__call__", read_on_and_on)
    monkeypatch.setattr(read_status, "ALL_S", 5.0)
    monkeypatch.setattr(read_status, "ASK_S", 0.5)
    monkeypatch.setenv("NEARKIN_MONITOR_ENGINES", "broker")
    told = json.loads(at_broker("status", "--json").stdout)
    assert [part["problem"] for part in told["parts"] if part["name"] == "broker"] == [""]
    assert told["dead_letters"] is None


def test_a_folder_on_which_nothing_runs_is_unavailable(nearkin):
    done = nearkin("status", "--data", "nothing-here")
    assert done.exit_code == 3
    assert "no `nearkin up` runs on nothing-here" in done.output


def status(folder: Path) -> tuple[int, dict]:
    done = subprocess.run(
        [*NEARKIN, "status", "--json"],
        cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def process_of(folder: Path, port: str) -> psutil.Process:
    for process in psutil.process_iter(["cmdline", "environ"]):
        listens = (process.info["environ"] or {}).get("NEARKIN_METRICS_LISTEN", "")
        if listens.endswith(f":{port}") and process.info["cmdline"][-2:] == ["-m", "nearkin.monitor"]:
            return process
    pytest.fail("the monitor does not run")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_on_a_stack_of_its_own_it_holds_while_the_monitor_hangs(tmp_path):
    with (tmp_path / "up.log").open("wb") as log:
        up = subprocess.Popen([*NEARKIN, "up"], cwd=tmp_path, env=ENVIRONMENT, stdout=log, stderr=log)
    try:
        until(lambda: read_endpoints(tmp_path / ".nearkin") and status(tmp_path)[0] == 0, "all is healthy")
        until(lambda: (status(tmp_path)[1]["probes"] or {}).get("proved"), "a probe is proved")
        code, said = status(tmp_path)
        assert code == 0
        assert {part["name"] for part in said["parts"]} >= {"broker", "index", "lookup", "indexer-live", "monitor"}
        assert [lane["lane"] for lane in said["lanes"]] == ["live", "bulk", "feedback", "visits"]
        assert said["index"] == {"items": 0, "tombstones": 0}
        assert said["dead_letters"] == []
        assert said["probes"]["visible_s"] > 0
        port = read_endpoints(tmp_path / ".nearkin").metrics["monitor"].rpartition(":")[2]
        monitor = process_of(tmp_path, port)
        monitor.suspend()
        code, said = status(tmp_path)
        assert code == 3
        assert [part["name"] for part in said["parts"] if not part["up"]] == ["monitor"]
        assert said["probes"] is None
        assert len(said["lanes"]) == 4
        monitor.resume()
        until(lambda: status(tmp_path)[0] == 0, "it is back")
        begun = time.monotonic()
        # A shell lets what it runs in the background ignore SIGINT, and that is inherited; a handler is not.
        ours = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            watching = subprocess.Popen(
                [*NEARKIN, "status", "--json", "--watch", "--every", "0.2"],
                cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        finally:
            signal.signal(signal.SIGINT, ours)
        with watching:
            try:
                assert watching.stdout
                looks = [json.loads(watching.stdout.readline()) for _ in range(3)]
                assert all(look["healthy"] for look in looks), time.monotonic() - begun
                watching.send_signal(signal.SIGINT)
                watching.communicate(timeout=60)
                assert watching.returncode == 0
            finally:
                watching.kill()
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(100)
