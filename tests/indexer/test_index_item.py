"""The use case over the ports alone: no broker, no Faust, no engine."""

import asyncio
import logging
from itertools import permutations

import pytest
from prometheus_client import CollectorRegistry

from nearkin.contracts.events import encode_deleted, encode_offered, encode_upserted
from nearkin.core import item
from nearkin.core.errors import TemporaryError, Unavailable
from nearkin.core.item import Content, Offer, Price
from nearkin.core.ports import IndexedItem, ItemWrite, Search
from nearkin.core.sketch import sketch
from nearkin.core.vectors import VectorName
from nearkin.encoders.fake import HashingEncoder
from nearkin.indexer.index_item import IndexItems
from nearkin.ops.metrics import Metrics
from nearkin.ops.record import Record
from nearkin.stores.memory import MemoryIndex

NOW = 1_700_000_000_000
MUG = Content(title="red mug")
CUP = Content(title="blue cup")
EMPTY = Content(numbers={})
CHEAP, DEAR = Offer(Price(1.0, "EUR")), Offer(Price(9.0, "EUR"))


class CountingEncoder(HashingEncoder):
    """Knows what it was asked to encode."""

    def __init__(self):
        super().__init__()
        self.titles = []

    def encode(self, contents):
        self.titles += [content.title for content in contents]
        return super().encode(contents)


class Indexing:
    """One collection, one encoder, and the use case between them."""

    def __init__(self):
        self.encoder = CountingEncoder()
        self.metrics = Metrics(CollectorRegistry())
        self.offset = 0

    async def start(self):
        self.items = await MemoryIndex().prepare(self.encoder.bundle, self.encoder.dimensions)
        self.index_items = self.another()
        return self

    def another(self, items=None, **options):
        return IndexItems(items or self.items, self.encoder, self.metrics, **options)

    def record(self, event):
        self.offset += 1
        key, value = event
        return Record("items.v1", 0, self.offset, NOW + 5, key, value)

    async def __call__(self, *events):
        return await self.index_items([self.record(event) for event in events])

    async def held(self, item_id="a"):
        item = (await self.items.read([item_id])).get(item_id)
        return item and item.state

    async def found(self, text):
        (vectors,) = HashingEncoder().encode([Content(title=text)])
        (hits,) = await self.items.search([Search(VectorName.CONTENT, vectors.content, 10)])
        return [hit.id for hit in hits]

    def count(self, name, **labels):
        return self.metrics.registry.get_sample_value(f"nearkin_{name}", labels) or 0


@pytest.fixture
async def indexing():
    made = await Indexing().start()
    yield made
    await made.index_items.close()


def upserted(content, version, *, item_id="a", offer=None, offer_version=None, at=NOW):
    return encode_upserted(
        item_id, content, version, event_id=f"u{version}", occurred_at=at, offer=offer, offer_version=offer_version
    )


def offered(offer, version, item_id="a", at=NOW):
    return encode_offered(item_id, offer, version, event_id=f"o{version}", occurred_at=at)


def deleted(version, item_id="a", at=NOW):
    return encode_deleted(item_id, version, event_id=f"d{version}", occurred_at=at)


async def test_an_upserted_item_is_found(indexing):
    assert await indexing(upserted(MUG, 1)) == []

    assert await indexing.found("red mug") == ["a"]


async def test_the_newest_content_wins_within_a_batch_whatever_the_order(indexing):
    await indexing(upserted(CUP, 2), upserted(MUG, 1))

    assert (await indexing.held()).content.title == "blue cup"
    assert indexing.encoder.titles == ["blue cup"]


async def test_an_older_upsert_after_a_newer_changes_nothing(indexing):
    await indexing(upserted(CUP, 2))
    await indexing(upserted(MUG, 1))

    assert (await indexing.held()).content.title == "blue cup"
    assert indexing.count("events_total", topic="items.v1", outcome="superseded") == 1


async def test_a_repeated_event_is_not_encoded_again(indexing):
    await indexing(upserted(MUG, 1), upserted(MUG, 1))
    await indexing(upserted(MUG, 1))

    assert indexing.encoder.titles == ["red mug"]


async def test_an_offer_changes_the_payload_alone(indexing):
    await indexing(upserted(MUG, 1))
    await indexing(offered(CHEAP, 2))

    assert (await indexing.held()).offer == CHEAP
    assert await indexing.found("red mug") == ["a"]
    assert indexing.encoder.titles == ["red mug"]


async def test_a_new_version_of_the_same_text_is_not_encoded_again(indexing):
    await indexing(upserted(MUG, 1))
    await indexing(upserted(Content(title="red mug", images=("https://example.com/mug.jpg",)), 2))

    assert (await indexing.held()).content.images
    assert indexing.encoder.titles == ["red mug"]


async def test_two_items_of_equal_text_are_encoded_once(indexing):
    await indexing(upserted(MUG, 1), upserted(MUG, 1, item_id="b"))

    assert indexing.encoder.titles == ["red mug"]
    assert sorted(await indexing.found("red mug")) == ["a", "b"]


async def test_an_offer_before_its_item_waits_for_it(indexing):
    await indexing(offered(CHEAP, 5))
    assert await indexing.found("red mug") == []

    await indexing(upserted(MUG, 1))

    assert await indexing.found("red mug") == ["a"]
    assert (await indexing.held()).offer == CHEAP


async def test_a_delete_before_its_upsert_keeps_the_item_away(indexing):
    await indexing(deleted(5))
    await indexing(upserted(MUG, 4))

    assert await indexing.found("red mug") == []
    assert (await indexing.held()).is_deleted
    assert indexing.encoder.titles == []


async def test_a_newer_upsert_revives_a_deleted_item(indexing):
    await indexing(upserted(MUG, 1), deleted(2))
    await indexing(upserted(MUG, 3))

    assert await indexing.found("red mug") == ["a"]


async def test_an_item_was_first_seen_when_its_oldest_event_occurred_in_every_order(indexing):
    for number, order in enumerate(permutations(range(3))):
        item_id = f"i{number}"
        events = [
            upserted(MUG, 3, item_id=item_id, at=NOW - 10),
            deleted(2, item_id, at=NOW - 20),
            offered(CHEAP, 1, item_id, at=NOW - 30),
        ]
        for place in order:
            await indexing(events[place])
        (held,) = (await indexing.items.read([item_id])).values()
        assert held.first_seen == NOW - 30


async def test_a_late_event_that_only_tells_of_an_earlier_day_encodes_nothing(indexing):
    await indexing(upserted(CUP, 2, at=NOW))
    await indexing(upserted(MUG, 1, at=NOW - 50))

    (facts,) = (await indexing.items.read_facts(["a"])).values()
    assert (facts.title, facts.first_seen) == ("blue cup", NOW - 50)
    assert indexing.encoder.titles == ["blue cup"]


async def test_the_sketch_is_of_the_vectors_and_stays_with_them(indexing):
    async def sketched():
        (facts,) = (await indexing.items.read_facts(["a"])).values()
        return facts.sketch

    def sketch_of(content):
        return sketch(HashingEncoder().encode([content])[0].content)

    await indexing(upserted(MUG, 1))
    assert await sketched() == sketch_of(MUG)
    await indexing(offered(CHEAP, 2))
    assert await sketched() == sketch_of(MUG)
    await indexing(upserted(CUP, 3))
    assert await sketched() == sketch_of(CUP)


async def test_an_item_that_was_indexed_without_a_sketch_gets_it_with_its_next_content(indexing):
    (vectors,) = HashingEncoder().encode([MUG])
    older = IndexedItem(item.upserted("a", MUG, 1), HashingEncoder().fingerprint(MUG))
    await indexing.items.write([ItemWrite(older, None, vectors)])
    await indexing(upserted(MUG, 2))
    (facts,) = (await indexing.items.read_facts(["a"])).values()
    assert facts.sketch == sketch(vectors.content)


async def test_a_poison_event_is_rejected_and_the_others_are_served(indexing):
    records = [
        indexing.record(event)
        for event in [(b"a", b"not json"), upserted(MUG, 1), (b"b", None), (None, upserted(CUP, 1)[1])]
    ]

    rejected = await indexing.index_items(records)

    assert [each.error.reason for each in rejected] == ["not_json", "null_value", "bad_key"]
    assert [each.record for each in rejected] == [records[0], records[2], records[3]]
    assert await indexing.found("red mug") == ["a"]


async def test_an_upsert_without_anything_to_encode_is_rejected_whole(indexing):
    rejected = await indexing(upserted(EMPTY, 1, offer=CHEAP, offer_version=1))

    assert [each.error.reason for each in rejected] == ["nothing_to_encode"]
    assert await indexing.held() is None


async def test_a_newer_upsert_that_cannot_be_encoded_hides_no_older_one(indexing):
    rejected = await indexing(upserted(EMPTY, 9, offer=DEAR, offer_version=9), upserted(MUG, 1), offered(CHEAP, 2))

    assert len(rejected) == 1
    state = await indexing.held()
    assert (state.content.title, state.content_version) == ("red mug", 1)
    assert (state.offer, state.offered_version) == (CHEAP, 2)


async def test_every_copy_of_an_upsert_that_cannot_be_encoded_is_rejected(indexing):
    rejected = await indexing(upserted(EMPTY, 9), upserted(MUG, 1), upserted(EMPTY, 9))

    assert [each.record.offset for each in rejected] == [1, 3]
    assert await indexing.found("red mug") == ["a"]


async def test_an_older_upsert_that_cannot_be_encoded_brings_no_offer(indexing):
    await indexing(upserted(MUG, 5))

    rejected = await indexing(upserted(EMPTY, 1, offer=DEAR, offer_version=9))

    assert len(rejected) == 1
    assert (await indexing.held()).offer == Offer()


async def test_an_item_in_the_index_outlives_an_update_that_cannot_be_encoded(indexing):
    await indexing(upserted(MUG, 1))

    rejected = await indexing(upserted(EMPTY, 2))

    assert len(rejected) == 1
    assert await indexing.found("red mug") == ["a"]


async def test_a_lost_race_is_read_merged_and_written_again(indexing):
    class Racing:
        """Another indexer writes between our read and our write, once."""

        def __init__(self, items, other):
            self._items, self._other, self.raced = items, other, False

        def __getattr__(self, name):
            return getattr(self._items, name)

        async def write(self, writes):
            if not self.raced:
                self.raced = True
                await self._other([indexing.record(upserted(CUP, 2)), indexing.record(offered(CHEAP, 7))])
            return await self._items.write(writes)

    racing = indexing.another(Racing(indexing.items, indexing.index_items))

    assert await racing([indexing.record(upserted(MUG, 3)), indexing.record(offered(DEAR, 4))]) == []

    state = await indexing.held()
    assert (state.content.title, state.offer) == ("red mug", CHEAP)
    assert indexing.count("write_conflicts_total") == 1
    assert indexing.encoder.titles == ["red mug", "blue cup"]


async def test_a_race_that_is_always_lost_becomes_a_temporary_failure(indexing):
    class Losing:
        def __init__(self, items):
            self._items = items

        def __getattr__(self, name):
            return getattr(self._items, name)

        async def write(self, writes):
            return frozenset(write.item.state.id for write in writes)

    with pytest.raises(TemporaryError):
        await indexing.another(Losing(indexing.items))([indexing.record(upserted(MUG, 1))])


async def test_a_batch_that_failed_half_way_is_applied_whole_the_second_time(indexing):
    class Failing:
        """Writes one batch, then is gone."""

        def __init__(self, items):
            self._items, self.writes = items, 0

        def __getattr__(self, name):
            return getattr(self._items, name)

        async def write(self, writes):
            self.writes += 1
            if self.writes == 2:
                raise Unavailable("index", "gone")
            return await self._items.write(writes)

    batch = [indexing.record(upserted(MUG, 1, item_id=item_id)) for item_id in "abc"]
    failing = indexing.another(Failing(indexing.items), write_batch=1)

    with pytest.raises(Unavailable):
        await failing(batch)
    assert await failing(batch) == []

    assert sorted(await indexing.found("red mug")) == ["a", "b", "c"]


async def test_the_way_of_an_event_is_timed_in_stages(indexing):
    await indexing(upserted(MUG, 1))
    await indexing.index_items._sample

    stages = {
        stage: indexing.count("freshness_seconds_count", stage=stage)
        for stage in ("occurred_to_broker", "consumed_to_encoded", "encoded_to_upserted", "occurred_to_visible")
    }
    assert stages == dict.fromkeys(stages, 1)
    assert indexing.count("freshness_seconds_sum", stage="occurred_to_broker") == pytest.approx(0.005)
    assert indexing.count("visible_unproved_total") == 0


async def test_a_clock_that_jumps_spoils_no_figure_of_what_is_timed_here_and_samples_go_on(indexing):
    clock = [NOW / 1000 + 1]
    indexer = indexing.another(sample_every_s=0.0, now=lambda: clock[0])
    for version, jump_s in enumerate((0, -3600, 7200), 1):
        clock[0] += jump_s
        await indexer([indexing.record(upserted(MUG if version % 2 else CUP, version))])
        await indexer._sample

    assert indexing.count("freshness_seconds_count", stage="occurred_to_visible") == 3
    assert indexing.count("freshness_clamped_total", stage="broker_to_consumed") == 1
    assert indexing.count("freshness_clamped_total", stage="occurred_to_visible") == 1
    assert indexing.count("freshness_seconds_sum", stage="upserted_to_visible") < 10


async def test_a_clock_that_jumps_while_a_batch_is_applied_leaves_its_figures_as_they_were(indexing):
    clock = [NOW / 1000 + 1]

    class Jumping(HashingEncoder):
        def encode(self, contents):
            clock[0] += 3600
            return super().encode(contents)

    indexing.encoder = Jumping()
    indexer = indexing.another(now=lambda: clock[0])
    await indexer([indexing.record(upserted(MUG, 1))])
    await indexer._sample

    assert indexing.count("freshness_seconds_sum", stage="consumed_to_encoded") < 10
    assert indexing.count("freshness_seconds_sum", stage="occurred_to_visible") < 10


async def test_what_changes_nothing_is_no_sign_of_freshness(indexing):
    await indexing(upserted(MUG, 1))
    await indexing(upserted(MUG, 1))

    assert indexing.count("freshness_seconds_count", stage="encoded_to_upserted") == 1


async def test_encoding_does_not_hold_up_the_event_loop(indexing):
    running = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Slow(HashingEncoder):
        def encode(self, contents):
            asyncio.run_coroutine_threadsafe(set_running(), loop).result(10)
            return super().encode(contents)

    async def set_running():
        running.set()

    indexing.encoder = Slow()
    await indexing.another()([indexing.record(upserted(MUG, 1))])

    assert running.is_set()


async def test_reading_encoding_and_writing_are_each_timed(indexing):
    await indexing(encode_upserted("a", MUG, 1, event_id="e", occurred_at=NOW))

    assert [indexing.count(f"{step}_seconds_count") for step in ("index_read", "encode", "upsert")] == [1, 1, 1]


async def test_each_event_is_told_by_its_name_to_whoever_wants_to_know_of_every_one(indexing, caplog):
    events = [encode_upserted("a", MUG, version, event_id=f"e-{version}", occurred_at=NOW) for version in (2, 1)]
    await indexing(*events)
    assert not caplog.records

    with caplog.at_level(logging.DEBUG, "nearkin"):
        await indexing(*events)

    assert {each.fields["event_id"]: each.getMessage() for each in caplog.records} == {
        "e-2": "event superseded",
        "e-1": "event superseded",
    }
    assert "mug" not in str([vars(each) for each in caplog.records])
