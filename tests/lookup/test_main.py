import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nearkin.client.lookup import BlockingLookupClient
from nearkin.core.errors import Unavailable


@contextmanager
def started(**settings: str) -> Iterator[subprocess.Popen[str]]:
    """The look-up process, with its log as JSON on stderr; dead afterwards."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NEARKIN_")}
    environment |= {"NEARKIN_QDRANT_URL": "http://127.0.0.1:1", "NEARKIN_LOG_FORMAT": "json"}
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "nearkin.lookup"],
        env=environment | settings,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()


def line_that_says(process: subprocess.Popen[str], words: str) -> dict[str, str]:
    """The first log line with these words."""
    seen = []
    assert process.stderr
    for line in process.stderr:
        seen.append(line)
        if words in line and line.startswith("{"):
            return json.loads(line)
    raise AssertionError(f"the process ended without saying {words!r}: {seen}")


def test_it_starts_without_an_index_says_so_and_stops_when_asked():
    with started(NEARKIN_LOOKUP_LISTEN="127.0.0.1:0") as process:
        metrics = line_that_says(process, "health and metrics are served")["address"]
        address = line_that_says(process, "look-ups are served")["address"]
        assert not address.endswith(":0")
        line_that_says(process, "not serving until the index answers")
        with BlockingLookupClient(address) as client, pytest.raises(Unavailable):
            client.similar(item_id="a")
        with urllib.request.urlopen(f"http://{metrics}/live") as answer:
            assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError) as waiting, urllib.request.urlopen(f"http://{metrics}/ready"):
            pass
        with waiting.value:
            assert waiting.value.code == 503
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_taken_port_is_named_with_its_setting_and_the_process_exits_with_2():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with started(NEARKIN_LOOKUP_LISTEN=address) as process:
            line = line_that_says(process, "cannot start")
            assert process.wait(30) == 2
    assert f"NEARKIN_LOOKUP_LISTEN: {address}" in line["message"]
    assert "; stop what listens there" in line["message"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"NEARKIN_LOOKUP_LISTEN": "0.0.0.0:0"}, "NEARKIN_LOOKUP_LISTEN: 0.0.0.0:0 can be reached from other machines"),
        (
            {"NEARKIN_LOOKUP_LISTEN": "[::]:0"},
            "set NEARKIN_LOOKUP_CERT and NEARKIN_LOOKUP_KEY, listen on 127.0.0.1",
        ),
        ({"NEARKIN_METRICS_LISTEN": "0.0.0.0:0"}, "set NEARKIN_LISTEN_INSECURE=true where the network is private"),
        ({"NEARKIN_LOOKUP_CERT": "away.pem"}, "away.pem: it cannot be used"),
        ({"NEARKIN_LOOKUP_TOKENS": "away.json"}, "NEARKIN_LOOKUP_TOKENS: away.json cannot be used"),
    ],
)
def test_what_would_be_open_or_half_protected_is_told_and_the_process_exits_with_2(settings, told):
    with started(**{"NEARKIN_LOOKUP_LISTEN": "127.0.0.1:0", **settings}) as process:
        line = line_that_says(process, "cannot start")
        assert process.wait(30) == 2
    assert told in line["message"]


def test_beyond_this_machine_it_listens_where_the_operator_says_so():
    settings = {"NEARKIN_LOOKUP_LISTEN": "0.0.0.0:0", "NEARKIN_METRICS_LISTEN": "[::]:0"}
    with started(NEARKIN_LISTEN_INSECURE="true", **settings) as process:
        assert line_that_says(process, "health and metrics are served")["address"].startswith("[::]:")
        assert line_that_says(process, "look-ups are served")["address"].startswith("0.0.0.0:")


def test_a_bundle_that_is_not_there_is_named_and_the_process_exits_with_2(tmp_path):
    with started(NEARKIN_LOOKUP_LISTEN="127.0.0.1:0", NEARKIN_BUNDLE_PATH=str(tmp_path)) as process:
        line = line_that_says(process, "cannot start")
        assert process.wait(30) == 2
    assert str(tmp_path / "manifest.json") in line["message"]
    assert "NEARKIN_BUNDLE_PATH" in line["message"]


def test_a_file_of_decisions_that_is_broken_is_named_with_its_line_and_the_process_exits_with_2(tmp_path):
    decisions = tmp_path / "decisions.jsonl"
    decisions.write_text('{"block": "a"}\n{"blocked": "b"}\n')
    with started(NEARKIN_LOOKUP_LISTEN="127.0.0.1:0", NEARKIN_RULES_FILE=str(decisions)) as process:
        line = line_that_says(process, "cannot start")
        assert process.wait(30) == 2
    assert f"{decisions}:2: is no decision" in line["message"]


def test_a_file_of_weights_that_does_not_fit_the_features_is_named_and_the_process_exits_with_2(tmp_path):
    weights = tmp_path / "weights.json"
    weights.write_text('{"id": "mine", "feature_version": 1, "features": {"fused": 1.0}}')
    with started(NEARKIN_LOOKUP_LISTEN="127.0.0.1:0", NEARKIN_RANKING_WEIGHTS=str(weights)) as process:
        line = line_that_says(process, "cannot start")
        assert process.wait(30) == 2
    assert f"{weights}: features.content is missing; give every feature its weight" in line["message"]
