"""Whose topic was made again reads it from its first event on, and nobody else reads anything twice."""

import asyncio

from nearkin.core.errors import Unavailable
from nearkin.indexer import read_anew
from nearkin.indexer.read_anew import ReadAnew

PLACES = frozenset({("items.v1", 0), ("items.v1", 1)})
FROM_THE_BEGINNING = dict.fromkeys(PLACES, 0)


class MadeLogs:
    """A broker whose topic has the id that a test says; None where it is gone."""

    def __init__(self):
        self.topic_id = "first"

    async def ids(self, topics):
        if isinstance(self.topic_id, Exception):
            raise self.topic_id
        return {topic: self.topic_id for topic in topics if self.topic_id}


async def look(ledger):
    """What it says after it has asked the broker."""
    said = dict(await ledger.tick())
    await asyncio.sleep(0.01)
    return said | dict(await ledger.tick())


async def test_a_topic_that_stays_is_read_on_where_the_group_was(monkeypatch):
    monkeypatch.setattr(read_anew, "LOOK_EVERY_S", 0)
    ledger = ReadAnew(MadeLogs(), "items.v1")
    assert await ledger.begin(PLACES) == {}
    assert [await look(ledger) for _ in range(3)] == [{}, {}, {}]


async def test_a_topic_with_another_id_is_read_from_its_beginning_once(monkeypatch):
    monkeypatch.setattr(read_anew, "LOOK_EVERY_S", 0)
    ledger = ReadAnew(logs := MadeLogs(), "items.v1")
    await ledger.begin(PLACES)
    await look(ledger)
    logs.topic_id = None
    assert await look(ledger) == {}
    logs.topic_id = Unavailable("broker", "it is away")
    assert await look(ledger) == {}
    logs.topic_id = "second"
    assert await look(ledger) == FROM_THE_BEGINNING
    assert await look(ledger) == {}


async def test_partitions_that_come_a_moment_later_are_read_from_their_beginning_too(monkeypatch):
    monkeypatch.setattr(read_anew, "LOOK_EVERY_S", 0)
    ledger = ReadAnew(logs := MadeLogs(), "items.v1")
    await ledger.begin(PLACES)
    await look(ledger)
    logs.topic_id = "second"
    await look(ledger)
    assert await ledger.begin(PLACES) == FROM_THE_BEGINNING
    monkeypatch.setattr(ledger, "_anew_until", 0.0)
    assert await ledger.begin(PLACES) == {}
