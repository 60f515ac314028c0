"""`python -m nearkin.ops.ask_health`: a health check for containers, against a real /live and /ready."""

import os
import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry

from nearkin.embedded.programs import free_port
from nearkin.ops.health import Health, HealthServer
from nearkin.ops.metrics import Metrics


def ask(listen: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nearkin.ops.ask_health", *words]
    environment = os.environ | {"NEARKIN_METRICS_LISTEN": listen}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_service_that_waits_is_live_and_not_ready(host):
    metrics = Metrics(CollectorRegistry())
    health = Health(metrics, "index")
    with HealthServer(f"{host}:0", health, metrics, insecure=True) as server:
        waits, lives = ask(server.address, "ready"), ask(server.address, "live")
        health.ready("index")
        ready = ask(server.address, "ready")

    assert (waits.returncode, lives.returncode, ready.returncode) == (1, 0, 0)
    assert "index" in waits.stdout


def test_where_nothing_listens_it_says_so():
    asked = ask(f"127.0.0.1:{free_port()}", "ready")

    assert asked.returncode == 1
    assert "nothing answers" in asked.stderr


@pytest.mark.parametrize(
    ("listen", "words"),
    [("", ["ready"]), ("127.0.0.1:0", ["ready"]), ("127.0.0.1:9101", []), ("127.0.0.1:9101", ["metrics"])],
)
def test_what_cannot_be_asked_is_a_usage_error(listen, words):
    assert ask(listen, *words).returncode == 2
