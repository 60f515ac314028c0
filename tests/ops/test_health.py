import asyncio
import json
import signal
import socket
import struct
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from nearkin.core.errors import Misconfigured
from nearkin.ops import health as module
from nearkin.ops.health import LATE_S, LOOP, Health, HealthServer, beating
from nearkin.ops.metrics import Metrics
from ops.service_process import ServiceProcess, eventually


class Clock:
    """Monotonic seconds that pass when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def metrics():
    return Metrics(CollectorRegistry(), "test")


def get(server, path):
    try:
        with urllib.request.urlopen(f"http://{server.address}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_process_is_ready_when_none_of_its_parts_waits(metrics):
    health = Health(metrics, "index", "broker")
    with HealthServer("127.0.0.1:0", health, metrics) as server:
        health.ready("index")
        status, body = get(server, "/ready")
        assert (status, json.loads(body)["waiting"]) == (503, {"broker": "starting"})

        health.ready("broker")

        assert get(server, "/ready")[0] == 200


def test_a_part_that_waits_again_is_named_with_its_reason(metrics):
    health = Health(metrics)
    with HealthServer("127.0.0.1:0", health, metrics) as server:
        health.waits("index", "the index is unavailable: timed out")

        status, body = get(server, "/ready")

    assert status == 503
    assert json.loads(body) == {"ready": False, "waiting": {"index": "the index is unavailable: timed out"}}


def test_a_process_that_waits_is_alive(metrics):
    with HealthServer("127.0.0.1:0", Health(metrics, "broker"), metrics) as server:
        assert get(server, "/live")[0] == 200


def test_metrics_are_served_and_say_whether_the_process_is_up(metrics):
    health = Health(metrics, "broker")
    with HealthServer("127.0.0.1:0", health, metrics) as server:
        assert "nearkin_up 0.0" in get(server, "/metrics")[1]

        health.ready("broker")

        assert "nearkin_up 1.0" in get(server, "/metrics")[1]


def test_who_connects_and_asks_nothing_is_left(metrics, monkeypatch, capsys):
    monkeypatch.setattr(module, "SILENT_S", 0.2)
    with HealthServer("127.0.0.1:0", Health(metrics), metrics) as server:
        host, _, port = server.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=30) as silent:
            assert silent.recv(1) == b""
    assert capsys.readouterr().err == ""


def test_another_path_is_not_found(metrics):
    with HealthServer("127.0.0.1:0", Health(metrics), metrics) as server:
        assert get(server, "/admin")[0] == 404


def test_a_taken_port_names_the_setting_and_the_remedy(metrics):
    with (
        HealthServer("127.0.0.1:0", Health(metrics), metrics) as server,
        pytest.raises(Misconfigured, match=r"NEARKIN_METRICS_LISTEN.*in use.*free host:port"),
    ):
        HealthServer(server.address, Health(metrics), metrics)


def test_a_process_that_is_started_again_has_its_port_at_once(metrics):
    with HealthServer("127.0.0.1:0", Health(metrics), metrics) as server:
        assert get(server, "/live")[0] == 200
    with HealthServer(server.address, Health(metrics), metrics) as again:
        assert get(again, "/live")[0] == 200


@pytest.mark.parametrize("listen", ["nonsense", ":0", "127.0.0.1:notaport", "127.0.0.1:99999", "203.0.113.7:1"])
def test_an_address_that_cannot_be_served_names_the_setting(metrics, listen):
    with pytest.raises(Misconfigured, match="NEARKIN_METRICS_LISTEN"):
        HealthServer(listen, Health(metrics), metrics)


def test_it_is_served_on_an_ipv6_address_too(metrics):
    with HealthServer("[::1]:0", Health(metrics), metrics) as server:
        assert server.address.startswith("[::1]:")
        assert get(server, "/live")[0] == 200


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_it_is_reached_from_other_machines_only_where_the_operator_says_so(metrics, listen):
    with pytest.raises(Misconfigured, match=r"NEARKIN_METRICS_LISTEN.*set NEARKIN_LISTEN_INSECURE=true"):
        HealthServer(listen, Health(metrics), metrics)

    with HealthServer(listen, Health(metrics), metrics, insecure=True) as server:
        assert get(server, "/live")[0] == 200


def test_a_process_whose_event_loop_hangs_is_not_ready_soon_and_not_live_in_the_end(metrics):
    clock = Clock()
    health = Health(metrics, stall_timeout_s=30, clock=clock)
    with HealthServer("127.0.0.1:0", health, metrics) as server:
        health.beat()
        clock.now += LATE_S + 1
        assert (get(server, "/live")[0], get(server, "/ready")[0]) == (200, 503)
        assert "nearkin_loop_lag_seconds 6.0" in get(server, "/metrics")[1]

        clock.now += 30

        status, body = get(server, "/live")
        assert (status, json.loads(body)) == (503, {"live": False, "stalled": {LOOP: "no progress for 36 s"}})
        health.beat()
        assert (get(server, "/live")[0], get(server, "/ready")[0]) == (200, 200)


def test_a_process_that_never_gets_to_its_event_loop_is_not_live(metrics):
    clock = Clock()
    health = Health(metrics, "index", stall_timeout_s=30, clock=clock)

    clock.now += 31

    assert LOOP in health.stalled()


def test_another_part_has_the_time_that_it_asked_for(metrics):
    clock = Clock()
    health = Health(metrics, stall_timeout_s=30, clock=clock)
    health.beat("watchdog", within_s=90)

    clock.now += 80
    health.beat()
    assert health.stalled() == {}

    clock.now += 20
    assert health.stalled() == {"watchdog": "no progress for 100 s"}


async def test_an_event_loop_beats_while_it_serves_and_no_longer(metrics):
    clock = Clock()
    health = Health(metrics, stall_timeout_s=30, clock=clock)

    async def serve():
        clock.now += 31
        while health.stalled():  # noqa: ASYNC110  # what it waits for tells nobody
            await asyncio.sleep(0.01)
        return "served"

    assert await beating(health, serve()) == "served"
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "beat"] == []


def hanging(folder: Path, **environment: str) -> ServiceProcess:
    program = str(Path(__file__).with_name("hanging_program.py"))
    return ServiceProcess([program, str(folder / "hang")], folder / "log", environment)


def is_live(process: ServiceProcess) -> bool:
    try:
        with urllib.request.urlopen(f"http://{process.address}/live", timeout=5):
            return True
    except urllib.error.HTTPError as error:
        with error:
            return False


@pytest.mark.slow
def test_a_loop_that_hangs_is_told_by_the_thread_that_does_not_and_then_the_process_ends_itself(tmp_path):
    with hanging(tmp_path, NEARKIN_STALL_TIMEOUT_S="1") as process:
        process.until_ready()
        assert is_live(process)

        (tmp_path / "hang").touch()

        eventually(lambda: not is_live(process), "it says that it is not live")
        assert process.exit() == 70
    said = process.log.read_text()
    assert "makes no progress and ends itself" in said
    assert "hanging_program.py" in said  # where each thread was


def test_a_process_that_was_stopped_as_a_whole_goes_on(tmp_path):
    with hanging(tmp_path, NEARKIN_STALL_TIMEOUT_S="1") as process:
        process.until_ready()
        process.process.send_signal(signal.SIGSTOP)
        time.sleep(3)  # longer than after what it would end itself

        process.process.send_signal(signal.SIGCONT)

        eventually(lambda: is_live(process), "it is live again")
        assert process.stop() == 0


def test_who_asks_and_is_gone_before_the_answer_leaves_nothing_in_the_log(tmp_path):
    with hanging(tmp_path) as process:
        process.until_ready()
        process.process.send_signal(signal.SIGSTOP)
        host, _, port = process.address.rpartition(":")
        with socket.create_connection((host, int(port))) as asking:
            asking.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            # Closed at once, and without a farewell: whoever writes to it is told that it is broken.
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        process.process.send_signal(signal.SIGCONT)

        assert is_live(process)
        assert process.stop() == 0
    assert "Traceback" not in process.log.read_text()
