"""The whole of Nearkin where nothing is open: an item and a visit go all the way; no secret is seen, whatever fails.

Kafka is spoken to by TLS and as a user, Redis by mutual TLS and as a user, the index by TLS with its key, and look-ups
by mutual TLS with tokens.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from certificates import Authority, Pair
from engines.protected_kafka import PASSWORDS, USER, ProtectedKafka
from engines.tls_redis import PASSWORD as REDIS_PASSWORD
from engines.tls_redis import USER as REDIS_USER
from engines.tls_redis import NoTlsRedis, TlsRedis, tls_redis_binary
from faults.running_parts import Part
from nearkin.embedded.programs import LOOPBACK, accepts, free_port
from waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

#: Every secret, under the name of its file; all of them carry the same mark.
MARK = "s3cret"
SECRETS = {
    "kafka_sasl_password": PASSWORDS["SCRAM-SHA-512"],
    "redis_password": REDIS_PASSWORD,
    "qdrant_api_key": f"{MARK}-index",
    "lookup_token": f"{MARK}-operator",
}

ITEMS = [
    {"id": "mug", "title": "Red mug", "price": {"amount": 4.5, "currency": "GBP"}, "markets": ["GB"]},
    {"id": "cup", "title": "Red cup", "price": {"amount": 3.5, "currency": "GBP"}, "markets": ["GB"]},
]
VISIT = {"kind": "visit", "event_id": "e", "visit_id": "v", "visit_kind": "basket", "items": ["mug", "cup"]}


class Protected:
    """All parts, and the command line, by the same settings.

    Args:
        folder: of everything.
        jars: of Apache Kafka.
        stack: ends what is started.
    """

    def __init__(self, folder: Path, jars: Path, stack: ExitStack) -> None:
        self.folder = folder
        authority = Authority(folder / "files")
        self.shown: dict[str, Pair] = {name: authority.issue() for name in ("redis", "index", "lookup", "mine")}
        self.authority = authority
        self.kafka = ProtectedKafka(jars, folder / "kafka" / "data", authority)
        self.redis = TlsRedis(folder / "redis", self.shown["redis"], authority.file, authority.issue())
        self.index_address, self.lookup_address = (f"{LOOPBACK}:{free_port()}" for _ in range(2))
        self.secrets = folder / "secrets"
        self.secrets.mkdir()
        for name, secret in SECRETS.items():
            (self.secrets / f"nearkin_{name}").write_text(f"{secret}\n")
        self.tokens = folder / "tokens.json"
        self.allow(SECRETS["lookup_token"], "*")
        mine, ca = self.shown["mine"], str(authority.file)
        self.environment = {
            "NEARKIN_SECRETS_DIR": str(self.secrets),
            "NEARKIN_KAFKA_BOOTSTRAP": self.kafka.bootstrap,
            "NEARKIN_KAFKA_PROTOCOL": "sasl_tls",
            "NEARKIN_KAFKA_CA": ca,
            "NEARKIN_KAFKA_SASL_USERNAME": USER,
            "NEARKIN_ITEMS_PARTITIONS": "1",
            "NEARKIN_REDIS_URL": self.redis.url,
            "NEARKIN_REDIS_CA": ca,
            "NEARKIN_REDIS_CERT": str(mine.cert),
            "NEARKIN_REDIS_KEY": str(mine.key),
            "NEARKIN_REDIS_USERNAME": REDIS_USER,
            "NEARKIN_QDRANT_URL": f"https://{self.index_address}",
            "NEARKIN_QDRANT_CA": ca,
            "NEARKIN_INDEX_CERT": str(self.shown["index"].cert),
            "NEARKIN_INDEX_KEY": str(self.shown["index"].key),
            "NEARKIN_LOOKUP_LISTEN": self.lookup_address,
            "NEARKIN_LOOKUP_CERT": str(self.shown["lookup"].cert),
            "NEARKIN_LOOKUP_KEY": str(self.shown["lookup"].key),
            "NEARKIN_LOOKUP_CLIENT_CA": ca,
            "NEARKIN_LOOKUP_TOKENS": str(self.tokens),
            "NEARKIN_LOOKUP_ADDRESS": self.lookup_address,
            "NEARKIN_LOOKUP_TLS": "true",
            "NEARKIN_LOOKUP_CA": ca,
            "NEARKIN_LOOKUP_CALLER_CERT": str(mine.cert),
            "NEARKIN_LOOKUP_CALLER_KEY": str(mine.key),
            "NEARKIN_UP_DATA": str(folder / "no-stack"),
            "NEARKIN_LOG_FORMAT": "json",
            "NEARKIN_LOG_LEVEL": "DEBUG",
            "NEARKIN_ENCODE_THREADS": "1",
            "NEARKIN_RETRY_MAX_MS": "500",
            "NEARKIN_PROBE_EVERY_S": "2",
        }
        owner = ["-m", "nearkin.embedded.index_owner", "--data", str(folder / "index"), "--listen", self.index_address]
        self.index = self._part(stack, "index", owner)
        self.services = [
            self._part(stack, name, ["-m", f"nearkin.{name}"], f"{LOOPBACK}:{free_port()}")
            for name in ("indexer", "feedback", "lookup", "monitor")
        ]

    def _part(self, stack: ExitStack, name: str, words: list[str], metrics: str = "") -> Part:
        environment = self.environment | ({"NEARKIN_METRICS_LISTEN": metrics} if metrics else {})
        part = Part(name, [sys.executable, *words], self.folder, environment, metrics)
        stack.callback(part.kill)
        return part

    def allow(self, token: str, *rights: str) -> None:
        """Have the look-up service know one token, and no other."""
        digest = hashlib.sha256(token.encode()).hexdigest()
        coming = self.tokens.with_suffix(".coming")
        coming.write_text(json.dumps({"tokens": [{"name": "operator", "sha256": digest, "rights": rights}]}))
        coming.replace(self.tokens)

    def command(self, *words: str, **others: str) -> "subprocess.CompletedProcess[str]":
        """Type a command."""
        return subprocess.run(
            [sys.executable, "-m", "nearkin.cli", *words],
            env=os.environ | self.environment | others,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def done(self, *words: str) -> str:
        """What a command prints that works."""
        ended = self.command(*words)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def seen(self) -> dict[str, str]:
        """All that a person, a scraper or a neighbour on the machine can see of the parts that run or ran."""
        parts = [self.index, *self.services]
        found = {f"{part.name}'s log": part.log.read_text() for part in parts}
        for part in parts:
            if part.runs:
                found[f"{part.name}'s command line"] = Path(f"/proc/{part.process.pid}/cmdline").read_text()
        for part in self.services:
            for path in ("/metrics", "/ready", "/live"):
                found[f"{part.name}'s {path}"] = part.ask(path)[1].decode()
        return found


@pytest.fixture
def all_of_it(tmp_path: Path, apache_kafka: Path) -> Iterator[Protected]:
    try:
        tls_redis_binary()
    except NoTlsRedis as error:
        if os.environ.get("NEARKIN_REQUIRE_ENGINES"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    with ExitStack() as stack:
        made = Protected(tmp_path, apache_kafka, stack)
        stack.enter_context(made.kafka)
        stack.enter_context(made.redis)
        yield made


def test_an_item_and_a_visit_go_all_the_way_and_no_secret_is_seen_whatever_fails(all_of_it: Protected) -> None:
    indexer, feedback, lookup, monitor = all_of_it.services
    all_of_it.done("topics", "apply")
    all_of_it.index.start()
    until(lambda: accepts(all_of_it.index_address), "the index listens")
    for part in all_of_it.services:
        part.start()
    for part in (indexer, feedback, lookup):
        until(lambda part=part: part.is_ready, f"{part.name} is ready")  # type: ignore[misc]

    # An item and a visit go all the way.
    lines = all_of_it.folder / "items.jsonl"
    lines.write_text("".join(f"{json.dumps(item)}\n" for item in ITEMS))
    all_of_it.done("publish", str(lines))

    def similar() -> list[str]:
        found = json.loads(all_of_it.done("similar", "--text", "red mug", "--json"))
        return [one["id"] for one in found["neighbours"]]

    until(lambda: set(similar()) == {"mug", "cup"}, "both items are found")
    visit = all_of_it.folder / "visit.jsonl"
    visit.write_text(json.dumps(VISIT | {"occurred_at": time.time_ns() // 10**6}) + "\n")
    published = all_of_it.command("publish", str(visit))
    assert published.returncode == 0, published.stderr
    until(lambda: feedback.counted("events_total", outcome="applied") >= 1, "the visit is counted")
    until(lambda: monitor.counted("monitor_probes_total", outcome="proved") >= 1, "the monitor proves a probe")

    # Who has no token, or no certificate, gets nothing, and is told so.
    refused = all_of_it.command("similar", "mug", NEARKIN_LOOKUP_TOKEN=f"{MARK}-unknown")
    assert refused.returncode == 2
    assert "the token is not known" in refused.stderr
    nobody = dict.fromkeys(("NEARKIN_LOOKUP_CALLER_CERT", "NEARKIN_LOOKUP_CALLER_KEY"), "")
    assert all_of_it.command("similar", "mug", **nobody).returncode == 3

    # What is rotated counts without a restart.
    all_of_it.allow(f"{MARK}-coming", "FindSimilar", "GetItems", "probes")
    all_of_it.shown["lookup"].become(all_of_it.authority.issue())
    (all_of_it.secrets / "nearkin_lookup_token").write_text(f"{MARK}-coming")
    until(lambda: all_of_it.command("similar", "mug").returncode == 0, "the new token is known")
    proved = monitor.counted("monitor_probes_total", outcome="proved")
    until(lambda: monitor.counted("monitor_probes_total", outcome="proved") > proved, "the monitor shows the new token")

    # All that can fail does.
    told = [refused.stderr]
    all_of_it.kafka.process.kill()
    all_of_it.redis.process.kill()
    all_of_it.index.kill()
    for part in (indexer, feedback, lookup):
        until(lambda part=part: not part.is_ready, f"{part.name} says that it waits")  # type: ignore[misc]
    for words in ("similar mug", "item mug", "evidence mug", f"publish {lines}", "topics check"):
        ended = all_of_it.command(*words.split())
        assert ended.returncode in (2, 3), ended.stderr
        told.append(ended.stdout + ended.stderr)
    for name in SECRETS:
        wrong = {f"NEARKIN_{name.upper()}": f"{MARK}\x01"}
        told.append("".join(all_of_it.command("topics", "check", **wrong).stderr))
    found = all_of_it.seen() | {f"command {number}": text for number, text in enumerate(told)}
    assert {where for where, text in found.items() if MARK in text} == set()
