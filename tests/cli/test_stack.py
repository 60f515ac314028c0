"""The stack as a user meets it: started by the command, asked by the commands, stopped by a signal."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from kafka import KafkaAdminClient, KafkaProducer

from engines.apache_kafka import apache_kafka_command
from nearkin.embedded.broker import broker_answers
from nearkin.embedded.endpoints import read_endpoints
from nearkin.embedded.programs import free_port, start, wait_until
from nearkin.ops.topics import apply_topics

NEARKIN = [sys.executable, "-m", "nearkin.cli"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("NEARKIN_")}


def nearkin(folder: Path, *arguments: str, check: int | None = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*NEARKIN, *arguments], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False
    )
    if check is not None:
        assert done.returncode == check, done.stdout + done.stderr
    return done


def start_up(folder: Path, **settings: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*NEARKIN, "up"],
        cwd=folder,
        env=ENVIRONMENT | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = []
    for line in process.stdout:
        said.append(line)
        if "Everything is up" in line:
            return process
    process.wait()
    pytest.fail("".join(said))


def stop(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    return process.returncode


def send_past_all_checks(folder: Path, key: bytes, value: bytes) -> None:
    with KafkaProducer(bootstrap_servers=read_endpoints(folder / ".nearkin").kafka) as producer:
        producer.send("items.v1", key=key, value=value).get(timeout=30)


def wait_for(folder: Path, item_id: str, condition) -> dict:
    for _ in range(300):
        said = json.loads(nearkin(folder, "item", item_id, "--json", check=None).stdout or "{}")
        if condition(said):
            return said
        time.sleep(0.2)
    pytest.fail(f"the item never came to the state: {said}")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_up_serves_every_command_and_keeps_the_index_over_a_restart(tmp_path):
    items = [{"id": f"mug-{n}", "title": f"{colour} mug"} for n, colour in enumerate(["Red", "Blue", "Green"])]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    up = start_up(tmp_path)
    try:
        taken = nearkin(tmp_path, "up", check=2)
        assert "another process owns the data folder" in taken.stderr
        assert "every topic is as it must be" in nearkin(tmp_path, "topics", "check").stdout
        nearkin(tmp_path, "publish", "items.jsonl")
        said = wait_for(tmp_path, "mug-2", lambda said: said.get("status") == "visible")
        assert said["bundle"]
        assert said["content_version"]
        assert said["indexed_at"]
        wait_for(tmp_path, "mug-1", lambda said: said.get("status") == "visible")
        found = json.loads(nearkin(tmp_path, "similar", "mug-0", "--json").stdout)
        assert {one["id"] for one in found["neighbours"]} == {"mug-1", "mug-2"}
        assert "Red mug" in nearkin(tmp_path, "similar", "--text", "a red cup", "--explain").stdout
        assert "not in the index" in nearkin(tmp_path, "similar", "cup-0", check=4).stderr
        nearkin(tmp_path, "delete", "mug-1")
        wait_for(tmp_path, "mug-1", lambda said: said.get("status") == "deleted")
        nearkin(tmp_path, "item", "cup-0", check=4)
        send_past_all_checks(tmp_path, b"broken", b'{"kind": "deleted", "id": "broken"}')
        (refusal,) = wait_for(tmp_path, "broken", lambda said: said.get("refusals"))["refusals"]
        assert refusal["reason"] == "missing_field"
        assert refusal["origin"].startswith("items.v1[")
    finally:
        assert stop(up) == 0
    assert read_endpoints(tmp_path / ".nearkin") is None
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]

    again = start_up(tmp_path)
    try:
        found = json.loads(nearkin(tmp_path, "similar", "mug-0", "--json").stdout)
        assert [one["id"] for one in found["neighbours"]] == ["mug-2"]
        assert "every topic is as it must be" in nearkin(tmp_path, "topics", "check").stdout
    finally:
        assert stop(again) == 0


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_commands_of_the_readme_can_be_typed_as_they_stand(tmp_path):
    readme = (Path(__file__).parents[2] / "README.md").read_text().split("## The command line")[1]
    (block,) = [one for one in re.findall(r"```sh\n(.*?)```", readme, re.DOTALL) if "nearkin up " not in one]
    commands = re.findall(r"^nearkin .*<<'END'(?:.*\n)+?END\n|^nearkin .*\n", block, re.MULTILINE)
    assert "".join(commands) == block
    shell = 'nearkin() { "$PYTHON" -m nearkin.cli "$@"; }\n'
    environment = ENVIRONMENT | {"PYTHON": sys.executable}
    said = {}
    up = start_up(tmp_path)
    try:
        for command in commands:
            # Where a machine types the next command, the item may not be indexed yet, and the monitor not be up.
            for _ in range(100):
                done = subprocess.run(
                    ["bash", "-c", shell + command], cwd=tmp_path, env=environment, capture_output=True, text=True,
                    timeout=120, check=False,
                )  # fmt: skip
                if done.returncode not in (3, 4):
                    break
                time.sleep(0.2)
            assert done.returncode == 0, command + done.stdout + done.stderr
            said[command.split()[1]] = done.stdout + done.stderr
    finally:
        assert stop(up) == 0
    assert list(said) == ["publish", "similar", "item", "delete", "status", "dlq", "topics"]
    assert "published 3 events" in said["publish"]
    assert "Red tea pot" in said["similar"]
    assert "Scores are relative to this answer" in said["similar"]
    assert "deletion of mug-1 published" in said["delete"]
    assert said["status"].rstrip().endswith("healthy")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_look_ups_keep_their_address_where_it_is_asked_for_and_a_taken_one_is_refused(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    up = start_up(tmp_path, NEARKIN_LOOKUP_LISTEN=address)
    try:
        assert read_endpoints(tmp_path / ".nearkin").lookup == address
        assert "no item is similar" in nearkin(tmp_path, "similar", "--text", "mug").stdout
        refused = subprocess.run(
            [*NEARKIN, "up", "--data", "another"], cwd=tmp_path, env=ENVIRONMENT | {"NEARKIN_LOOKUP_LISTEN": address},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert refused.returncode == 2
        assert f"NEARKIN_LOOKUP_LISTEN: cannot listen on {address}" in refused.stderr
    finally:
        assert stop(up) == 0


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_after_the_broker_and_the_index_were_killed_new_items_are_found_again(tmp_path):
    up = start_up(tmp_path)
    try:
        endpoints = read_endpoints(tmp_path / ".nearkin")
        ports = {address.rpartition(":")[2] for address in (endpoints.kafka, endpoints.qdrant)}
        children = psutil.Process(up.pid).children()
        victims = [one for one in children if any(port in part for port in ports for part in one.cmdline())]
        assert len(victims) == 2
        for victim in victims:
            victim.kill()
        (tmp_path / "item.jsonl").write_text('{"id": "mug", "title": "Red mug"}\n')
        for _ in range(100):
            if nearkin(tmp_path, "publish", "item.jsonl", check=None).returncode == 0:
                break
            time.sleep(0.5)
        else:
            pytest.fail("nothing could be published after the broker's restart")
        wait_for(tmp_path, "mug", lambda said: said.get("status") == "visible")
    finally:
        assert stop(up) == 0


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda folder: (folder.mkdir(), (folder / "FORMAT").write_text("nearkin-stack 99\n")), "nearkin-stack 99"),
        (lambda folder: (folder.mkdir(), (folder / "holiday.jpg").touch()), "holiday.jpg"),
        (lambda folder: folder.touch(), "Not a directory|is a file"),
    ],
    ids=["of another version", "of somebody else", "that is a file"],
)
def test_up_refuses_a_data_folder_and_writes_nothing_into_it(tmp_path, prepare, said):
    folder = tmp_path / "data"
    prepare(folder)
    before = sorted(folder.rglob("*"))
    refused = nearkin(tmp_path, "up", "--data", str(folder), check=2)
    assert any(word in refused.stderr for word in said.split("|"))
    assert "Traceback" not in refused.stderr
    assert sorted(folder.rglob("*")) == before


@pytest.fixture
def kafka(tmp_path, apache_kafka):
    """An Apache Kafka that runs; its host:port."""
    address = f"127.0.0.1:{(port := free_port())}"
    command = apache_kafka_command(apache_kafka, tmp_path / "kafka", port, address)
    with (tmp_path / "kafka.log").open("wb") as log:
        process = start(command, log)
        try:
            wait_until(lambda: broker_answers(address), "broker", process, timeout_s=60)
            yield address
        finally:
            process.kill()
            process.wait()


def topics_on(kafka):
    with KafkaAdminClient(bootstrap_servers=kafka) as admin:
        return [name for name in admin.list_topics() if not name.startswith("__")]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_demonstration_on_a_kafka_that_runs_proves_the_same_and_takes_its_topics_away(tmp_path, kafka):
    done = nearkin(tmp_path, "demo", "--kafka", kafka, "--json", "figures.json")
    assert "broker: ready" not in done.stderr
    figures = require_proved(tmp_path / "figures.json")
    assert figures["endpoints"]["kafka"] == kafka
    assert topics_on(kafka) == []


@pytest.mark.slow
def test_the_demonstration_leaves_a_kafka_alone_that_has_topics_of_nearkin(tmp_path, kafka):
    apply_topics(kafka, partitions=4, replication=1).require()
    before = topics_on(kafka)
    refused = nearkin(tmp_path, "demo", "--kafka", kafka, check=2)
    assert "has the topic items.v1 already" in refused.stderr
    assert topics_on(kafka) == before


def require_proved(figures_file):
    figures = json.loads(figures_file.read_text())
    assert figures["proved"] == figures["new_items"] > 100
    assert figures["not_proved"] == []
    assert len(figures["shown"]) == 5
    assert all(one["older_id"] for one in figures["shown"])
    return figures


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_demonstration_proves_every_new_item_and_leaves_nothing_behind(tmp_path):
    done = nearkin(tmp_path, "demo", "--json", "figures.json")
    figures = require_proved(tmp_path / "figures.json")
    assert {stage["stage"] for stage in figures["stages"]} >= {"occurred_to_broker", "occurred_to_visible"}
    assert figures["end_to_end"]["count"] == figures["proved"]
    purchases = figures["purchases"]
    assert purchases["invoices"] > 2000
    assert all(one["before"] and one["after"] for one in purchases["shown"])
    gains = {one["metric"]: one["difference"] for one in purchases["scores"]["combined"]}
    assert gains["Recall@10"]["low"] > 0
    assert "bought with the item from 2011-10-01 on" in " ".join(done.stdout.split())
    assert "Everything is stopped" in done.stdout
    assert not [p for p in psutil.process_iter(["cmdline"]) if "nearkin-demo-" in " ".join(p.info["cmdline"] or [])]
