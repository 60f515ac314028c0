"""Every connection to Kafka, by TLS with a password or a certificate, to a real Apache Kafka that asks for it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from certificates import Authority
from engines.protected_kafka import PASSWORDS, STRANGER, USER, ProtectedKafka
from nearkin.cli.find_refusals import find_refusals
from nearkin.client.producer import Producer
from nearkin.contracts.topics import ITEMS
from nearkin.core.errors import InvalidEvent, Misconfigured, NearkinError, Unavailable
from nearkin.core.item import Content
from nearkin.ops.dead_letters import DeadLetters
from nearkin.ops.kafka_security import PLAINTEXT, KafkaSecurity, Mechanism
from nearkin.ops.metrics import Metrics
from nearkin.ops.read_log import Logs
from nearkin.ops.record import Record, Rejected
from nearkin.ops.settings import load_settings
from nearkin.ops.tls import Tls
from nearkin.ops.topics import apply_topics, check_topics

WRONG = "s3cret-wrong"
ME = {"kafka_sasl_username": "me", "kafka_sasl_password": "x"}


@pytest.mark.parametrize(
    ("set_", "protocol"),
    [
        ({}, "PLAINTEXT"),
        ({"kafka_protocol": "tls"}, "SSL"),
        ({"kafka_protocol": "sasl_tls", **ME}, "SASL_SSL"),
        ({"kafka_protocol": "sasl_plaintext", **ME}, "SASL_PLAINTEXT"),
        (ME, "PLAINTEXT"),
    ],
)
def test_the_settings_say_how_brokers_are_spoken_to(set_: dict[str, str], protocol: str) -> None:
    assert load_settings(**set_).kafka_security.protocol == protocol


@pytest.mark.parametrize(
    ("set_", "field"),
    [
        ({"kafka_protocol": "sasl_tls"}, "NEARKIN_KAFKA_PROTOCOL"),
        ({"kafka_protocol": "sasl_tls", "kafka_sasl_username": "me"}, "NEARKIN_KAFKA_PROTOCOL"),
        ({"kafka_protocol": "tls", "kafka_key": "key.pem"}, "NEARKIN_KAFKA_CERT"),
        ({"kafka_protocol": "ssl"}, "NEARKIN_KAFKA_PROTOCOL"),
        ({"kafka_sasl_mechanism": "GSSAPI"}, "NEARKIN_KAFKA_SASL_MECHANISM"),
    ],
)
def test_half_of_it_is_refused_at_the_start(set_: dict[str, str], field: str) -> None:
    with pytest.raises(Misconfigured) as refusal:
        load_settings(**set_)
    assert refusal.value.field == field


def test_a_producer_is_told_of_half_a_user_and_shows_no_password() -> None:
    with pytest.raises(Misconfigured, match="without a password"):
        KafkaSecurity(username="me")
    with pytest.raises(Misconfigured, match="mechanism"):
        KafkaSecurity(username="me", password=WRONG, mechanism="plain")  # type: ignore[arg-type]
    assert WRONG not in repr(KafkaSecurity(username="me", password=WRONG))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def kafka(
    apache_kafka: Path, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProtectedKafka]:
    with ProtectedKafka(apache_kafka, tmp_path_factory.mktemp("kafka") / "data", authority) as kafka:
        apply_topics(kafka.bootstrap, 1, 1, security=security_of("SCRAM-SHA-512", authority))
        yield kafka


def security_of(kind: str, authority: Authority) -> KafkaSecurity:
    if kind == "certificate":
        return KafkaSecurity(authority.client())
    mechanism: Mechanism = kind  # type: ignore[assignment]
    return KafkaSecurity(Tls(authority.file), USER, PASSWORDS[kind], mechanism)


def problem(bootstrap: str, security: KafkaSecurity) -> NearkinError | None:
    """What a check of the topics meets."""
    try:
        check_topics(bootstrap, 1, 1, timeout_s=3, security=security).require()
    except NearkinError as error:
        return error
    return None


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", PASSWORDS)
def test_topics_are_made_and_checked_as_a_user_of_each_mechanism(
    kafka: ProtectedKafka, authority: Authority, mechanism: str
) -> None:
    assert check_topics(kafka.bootstrap, 1, 1, security=security_of(mechanism, authority)).agrees


@pytest.mark.slow
def test_an_event_is_published_read_refused_and_found_by_every_connection_that_there_is(
    kafka: ProtectedKafka, authority: Authority
) -> None:
    security = security_of("SCRAM-SHA-512", authority)
    with Producer(kafka.bootstrap, security=security) as producer:
        place = producer.upsert("mug", Content(title="Red mug")).result(30)

    async def read_and_refuse() -> list[Record]:
        logs = Logs(kafka.bootstrap, security)
        described = await logs.describe([(ITEMS.name, place.partition)])
        end = described[ITEMS.name, place.partition].end
        records = [one async for some in logs.read((ITEMS.name, place.partition), place.offset, end) for one in some]
        letters = DeadLetters(kafka.bootstrap, [ITEMS], Metrics(CollectorRegistry(), "test"), security=security)
        refused = InvalidEvent("the test says so", remedy="nothing", reason="test")
        await letters.send([Rejected(record, refused) for record in records])
        await letters.close()
        return records

    records = asyncio.run(read_and_refuse())

    assert [record.key for record in records] == [b"mug"]
    (refusal,) = find_refusals(kafka.bootstrap, "mug", security=security)
    assert refusal.reason == "test"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("password", "or the user nearkin or its password or a certificate wrong"),
        ("user", "or its password or a certificate wrong"),
        ("rights", "items.v1 is missing"),
        ("authority", "a certificate wrong"),
        ("in the open", "or want TLS or a password (NEARKIN_KAFKA_PROTOCOL)"),
        ("no certificate", "a certificate wrong"),
        ("expired certificate", "a certificate wrong"),
    ],
)
def test_who_is_not_let_in_is_told_and_no_password_is_shown(
    kafka: ProtectedKafka, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture, wrong: str, told: str
) -> None:
    tls, late = Tls(authority.file), authority.issue(expired=True)
    bootstrap, security = {
        "password": (kafka.bootstrap, KafkaSecurity(tls, USER, WRONG)),
        "user": (kafka.bootstrap, KafkaSecurity(tls, "s3cret-nobody", WRONG)),
        "rights": (kafka.bootstrap, KafkaSecurity(tls, STRANGER, PASSWORDS["PLAIN"], "PLAIN")),
        "authority": (
            kafka.bootstrap,
            KafkaSecurity(Tls(Authority(tmp_path / "other").file), USER, PASSWORDS["PLAIN"], "PLAIN"),
        ),
        "in the open": (kafka.bootstrap, PLAINTEXT),
        "no certificate": (kafka.mutual, KafkaSecurity(tls)),
        "expired certificate": (kafka.mutual, KafkaSecurity(Tls(authority.file, late.cert, late.key))),
    }[wrong]

    caplog.set_level("DEBUG")
    # Here kafka-python logs each byte that it sends, PLAIN's password among them; no process of ours ever asks for it.
    caplog.set_level("INFO", "kafka.protocol")
    found = problem(bootstrap, security)

    assert isinstance(found, Misconfigured if wrong == "rights" else Unavailable)
    assert told in str(found)
    shown = [f"{found}{found.__cause__}", *(f"{one.name} {one.getMessage()}" for one in caplog.records)]
    secrets = [WRONG, *PASSWORDS.values()]
    assert [line for line in shown if any(secret in line for secret in secrets)] == []


@pytest.mark.slow
def test_a_certificate_is_enough_where_the_broker_asks_for_one(kafka: ProtectedKafka, authority: Authority) -> None:
    # Whom it names has no rights here: it is let in, and sees no topic.
    found = problem(kafka.mutual, security_of("certificate", authority))

    assert isinstance(found, Misconfigured)
    assert "items.v1 is missing" in str(found)
