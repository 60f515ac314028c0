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
    ledger.take(dict.fromkeys(PLACES, ""))
    assert await ledger.begin(PLACES) == {}
    assert [await look(ledger) for _ in range(3)] == [{}, {}, {}]


async def test_a_topic_with_another_id_is_read_from_its_beginning_once(monkeypatch):
    monkeypatch.setattr(read_anew, "LOOK_EVERY_S", 0)
    ledger = ReadAnew(logs := MadeLogs(), "items.v1")
    ledger.take(dict.fromkeys(PLACES, ""))
    await ledger.begin(PLACES)
    await look(ledger)
    logs.topic_id = None
    assert await look(ledger) == {}
    logs.topic_id = Unavailable("broker", "it is away")
    assert await look(ledger) == {}
    logs.topic_id = "second"
    assert await look(ledger) == FROM_THE_BEGINNING
    assert await look(ledger) == {}


async def test_a_commit_that_says_it_is_of_another_topic_is_not_trusted():
    ledger = ReadAnew(logs := MadeLogs(), "items.v1")
    logs.topic_id = "second"
    ledger.take({("items.v1", 0): "first", ("items.v1", 1): "second"})
    await ledger.begin(PLACES)
    assert await look(ledger) == {("items.v1", 0): 0}


async def test_a_commit_names_the_topic_that_was_read_until_another_one_is_noticed(monkeypatch):
    monkeypatch.setattr(read_anew, "LOOK_EVERY_S", 0)
    ledger = ReadAnew(logs := MadeLogs(), "items.v1")
    place = ("items.v1", 0)
    ledger.take({place: ""})
    await ledger.begin(frozenset({place}))
    notes = [ledger.note(place)]
    await look(ledger)
    notes.append(ledger.note(place))
    logs.topic_id = "second"
    notes.append(ledger.note(place))
    await look(ledger)
    assert [*notes, ledger.note(place)] == ["", "first", "first", "second"]


async def test_without_a_word_beside_the_commits_they_are_of_the_topic_that_was_seen_last():
    """The embedded broker keeps none."""
    ledger = ReadAnew(logs := MadeLogs(), "items.v1")
    await look(ledger)
    logs.topic_id = "second"
    ledger.take(dict.fromkeys(PLACES, ""))
    await ledger.begin(PLACES)
    assert await look(ledger) == FROM_THE_BEGINNING


async def test_partitions_that_come_are_looked_at_soon():
    ledger = ReadAnew(logs := MadeLogs(), "items.v1")
    ledger.take(dict.fromkeys(PLACES, ""))
    await ledger.begin(PLACES)
    await look(ledger)
    logs.topic_id = "second"
    ledger.take(dict.fromkeys(PLACES, "first"))
    await ledger.begin(PLACES)
    assert await look(ledger) == FROM_THE_BEGINNING
