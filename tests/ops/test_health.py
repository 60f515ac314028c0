import json
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry

from nearkin.core.errors import Misconfigured
from nearkin.ops.health import Health, HealthServer
from nearkin.ops.metrics import Metrics


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
