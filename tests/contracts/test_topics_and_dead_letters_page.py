"""What docs/contracts.md says of topics is so, and its example shows every dead letter."""

import re
from pathlib import Path

from kafka import KafkaProducer

from nearkin.contracts.topics import DAY_MS, SOURCES, TOPICS
from nearkin.core.errors import InvalidEvent
from nearkin.embedded.broker import EmbeddedBroker
from nearkin.ops.failures import dead_letter
from nearkin.ops.letters import LetterId, Settled, marker_headers
from nearkin.ops.record import Record, Rejected
from nearkin.ops.topics import apply_topics

PAGE = Path(__file__).parents[2] / "docs" / "contracts.md"
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_every_topic_is_told_with_how_long_it_is_kept() -> None:
    told = re.findall(r"^\| `([\w.-]+)` \| .* \| (\d+) days \|$", PAGE.read_text(), re.MULTILINE)
    assert told == [(topic.name, str(topic.retention_ms // DAY_MS)) for topic in TOPICS]


def test_the_example_shows_dead_letters_of_every_topic_without_a_key_too_and_none_that_is_settled(capsys) -> None:
    example = EXAMPLE.replace("=5000,", "=2000,")  # here nothing more comes
    assert example != EXAMPLE
    refused = InvalidEvent("the record has no key", remedy="give it one", field="id", reason="bad_key")
    with EmbeddedBroker() as broker:
        apply_topics(broker.bootstrap, 4, 1)
        with KafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
            for topic in SOURCES:
                record = Record(topic.name, 2, 41, 1_700_000_000_000, None, b"{}", ())
                letter = dead_letter(Rejected(record, refused), topic.dead_letters, 1_700_000_000_001)
                for _ in range(2):
                    sent = producer.send(letter.topic, value=letter.value, headers=list(letter.headers), partition=2)
                    at = sent.get(timeout=30)
                marker = marker_headers(LetterId(letter.topic, 2, at.offset), Settled.DROPPED, "a test", 3)
                producer.send(letter.topic, value=b"", headers=marker, partition=2).get(timeout=30)
        exec(compile(example, str(PAGE), "exec"), {"bootstrap": broker.bootstrap, "__name__": "example"})
    said = "[2] offset 41 None bad_key: id: the record has no key; give it one"
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(f"{topic.name}{said}" for topic in SOURCES)
