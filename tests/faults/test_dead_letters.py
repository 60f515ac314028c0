"""Refused events that are sent again, by a command that is killed meanwhile."""

import os
import subprocess
import sys

import pytest
from kafka import KafkaConsumer

from faults.item_stream import Event, make_stream, reference, require_exactly
from faults.running_parts import PARTITIONS, Parts
from nearkin.cli.find_letters import Wanted, find_letters
from nearkin.contracts.topics import ITEMS
from nearkin.core.errors import InvalidEvent
from nearkin.core.ports import ContentEncoder
from nearkin.embedded.programs import leashed
from nearkin.ops.failures import dead_letter
from nearkin.ops.record import Record, Rejected
from waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.apache_kafka]

#: Events a second: the command sends so many, then marks them. It is killed in the midst of its second so many.
RATE, KILLED_AFTER = 100, 150


def refuse(parts: Parts, events: list[Event]) -> None:
    """Put events where a worker puts what fails in a way nobody foresaw."""
    wrong = InvalidEvent("a defect of an older version", remedy="report it", reason="internal")
    for number, event in enumerate(events):
        record = Record(ITEMS.name, number % PARTITIONS, number, 1_760_000_000_000, event.key, event.value)
        letter = dead_letter(Rejected(record, wrong), ITEMS.dead_letters, 1_760_000_000_000)
        parts.streams.producer.send(
            letter.topic, letter.value, key=letter.key, headers=list(letter.headers), partition=record.partition
        )
    parts.streams.producer.flush(60)


def replay(parts: Parts) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "nearkin.cli", "dlq", "replay", "--all", "--rate", str(RATE)]
    environment = os.environ | {"NEARKIN_KAFKA_BOOTSTRAP": parts.bootstrap}
    return subprocess.Popen(leashed(command), env=environment, stderr=subprocess.PIPE)


def open_letters(parts: Parts) -> int:
    return len(find_letters(parts.bootstrap, Wanted()).letters)


def test_a_replay_that_is_killed_is_gone_on_with_and_every_event_counts_once(
    parts: Parts, encoder: ContentEncoder, seed: int
) -> None:
    stream = make_stream(seed, items=80)
    assert len(stream) > 2 * RATE
    parts.start(parts.broker, parts.index)
    parts.start(parts.live)
    refuse(parts, stream)
    assert open_letters(parts) == len(stream)

    first = replay(parts)
    came = 0
    arriving = KafkaConsumer(
        ITEMS.name, bootstrap_servers=parts.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
    )

    def enough() -> bool:
        nonlocal came
        came += sum(map(len, arriving.poll(100).values()))
        return came >= KILLED_AFTER

    until(enough, "the command has sent some")
    arriving.close()
    assert first.poll() is None, first.stderr and first.stderr.read()
    first.kill()
    first.communicate()
    left = open_letters(parts)
    assert 0 < left < len(stream)

    second = replay(parts)
    _, said = second.communicate()
    assert (second.returncode, open_letters(parts)) == (0, 0), said
    sent = parts.streams.records(ITEMS)
    print(f"{len(sent)} events were sent for {len(stream)} letters, {left} of them were open after the kill")
    assert len(sent) >= len(stream)
    for record in sent:
        parts.streams.note(record)
    parts.streams.until_drained("live")
    parts.look_inside(lambda items: require_exactly(items, reference(stream), encoder))
