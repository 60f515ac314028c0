"""Whatever the order, repeats, batches, failures and races: the index ends as the merge of all events."""

import asyncio
from functools import reduce

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from prometheus_client import CollectorRegistry

from nearkin.contracts.events import decode_item_event, encode_deleted, encode_offered, encode_upserted
from nearkin.core.errors import TemporaryError, Unavailable
from nearkin.core.item import NEVER, Content, Offer, Price, merge
from nearkin.core.sketch import sketch
from nearkin.encoders.fake import HashingEncoder
from nearkin.indexer.index_item import IndexItems
from nearkin.ops.metrics import Metrics
from nearkin.ops.record import Record
from nearkin.stores.memory import MemoryIndex

NOW = 1_700_000_000_000
IDS = st.sampled_from(["a", "b", "c"])
VERSIONS = st.integers(0, 6)
MOMENTS = st.integers(NOW - 5, NOW)
#: The empty title cannot be encoded.
TITLES = st.sampled_from(["red mug", "blue cup", "green bowl", ""])
OFFERS = st.builds(lambda amount: Offer(Price(amount, "EUR")), st.sampled_from([1.0, 2.0, 3.0]))


@st.composite
def upserts(draw):
    offer = draw(st.none() | OFFERS)
    version = draw(VERSIONS) if offer else None
    content = Content(title=draw(TITLES))
    return encode_upserted(
        draw(IDS), content, draw(VERSIONS), event_id="u", occurred_at=draw(MOMENTS), offer=offer, offer_version=version
    )


EVENTS = st.one_of(
    upserts(),
    st.builds(
        lambda i, o, v, at: encode_offered(i, o, v, event_id="o", occurred_at=at), IDS, OFFERS, VERSIONS, MOMENTS
    ),
    st.builds(lambda i, v, at: encode_deleted(i, v, event_id="d", occurred_at=at), IDS, VERSIONS, MOMENTS),
)


class Unreliable:
    """The index as an indexer meets it: sometimes away, and every call lets another indexer in between."""

    def __init__(self, items, fail):
        self._items, self._fail = items, fail

    def __getattr__(self, name):
        return getattr(self._items, name)

    async def read(self, ids):
        await asyncio.sleep(0)
        found = await self._items.read(ids)
        await asyncio.sleep(0)
        return found

    async def write(self, writes):
        await asyncio.sleep(0)
        if self._fail and self._fail.pop():
            raise Unavailable("index", "before the write")
        lost = await self._items.write(writes)
        if self._fail and self._fail.pop():
            raise Unavailable("index", "after the write")
        return lost


class Indexer(RuleBasedStateMachine):
    """Publishes events to a log; an indexer reads any stretch of it, any number of times.

    One version may come with two values: the merge settles it.
    """

    shown = staticmethod(lambda event: event)
    raced = False

    @initialize()
    def start(self):
        self.runner = asyncio.Runner()
        self.encoder = HashingEncoder()
        self.items = self.runner.run(MemoryIndex().prepare(self.encoder.bundle, self.encoder.dimensions))
        self.log, self.applied = [], set()

    def teardown(self):
        if hasattr(self, "runner"):
            self.runner.close()

    @rule(events=st.lists(EVENTS, min_size=1, max_size=6))
    def publish(self, events):
        self.log += [
            Record("items.v1", 0, len(self.log) + at, NOW, *self.shown(event)) for at, event in enumerate(events)
        ]

    @rule(picks=st.lists(st.integers(0, 10_000), min_size=1, max_size=8), fail=st.lists(st.booleans(), max_size=6))
    def serve(self, picks, fail):
        self.together([(picks, fail)])

    def together(self, loads):
        if self.log:
            self.runner.run(self.gather([([p % len(self.log) for p in picks], fail) for picks, fail in loads]))

    async def gather(self, loads):
        await asyncio.gather(*(self.apply(picks, list(fail)) for picks, fail in loads))

    async def apply(self, picks, fail):
        indexer = IndexItems(
            Unreliable(self.items, fail),
            self.encoder,
            Metrics(CollectorRegistry()),
            write_batch=2,
            sample_every_s=1e12,
        )
        try:
            while True:
                try:
                    rejected = await indexer([self.log[pick] for pick in picks])
                    break
                except TemporaryError:
                    continue
        finally:
            await indexer.close()
        self.applied.update(picks)
        assert all(each.error.reason == "nothing_to_encode" for each in rejected)

    @invariant()
    def the_index_is_the_merge_of_what_was_applied(self):
        if not hasattr(self, "log"):
            return
        states, moments, refused = {}, {}, {}
        for pick in self.applied:
            event = decode_item_event(self.log[pick].key, self.log[pick].value)
            state = event.state
            if state.content is None or state.content.title:
                states.setdefault(state.id, []).append(state)
                moments.setdefault(state.id, []).append(event.occurred_at)
            else:
                refused.setdefault(state.id, []).append(event.occurred_at)
        wanted = {item_id: told(reduce(merge, each)) for item_id, each in states.items()}

        held = self.runner.run(self.items.read(["a", "b", "c"]))

        assert {item_id: told(item.state) for item_id, item in held.items() if told(item.state)} == {
            item_id: facts for item_id, facts in wanted.items() if facts
        }
        for item in held.values():
            point = self.items._points[item.state.id]
            assert (point.vectors is not None) == item.state.is_present
            assert bool(item.fingerprint) == item.state.is_present
            # An upsert that could not be encoded counts where it came too late to be encoded.
            known, late = moments[item.state.id], refused.get(item.state.id, [])
            assert item.first_seen in known + late
            assert self.raced or min(known + late) <= item.first_seen <= min(known)
            if item.state.content is not None:
                assert item.fingerprint == self.encoder.fingerprint(item.state.content)
                (fresh,) = self.encoder.encode([item.state.content])
                assert (point.vectors.content == fresh.content).all()
            assert item.sketch == (sketch(point.vectors.content) if item.state.is_present else b"")


class RacingIndexers(Indexer):
    """The same with two indexers at a time, as the live and the bulk lane are; a version has one value.

    The index compares versions alone: where two indexers write two values of one version at the same moment, the first
    stays, and the second is told that its version is there. So it is with the moment that an item was first seen.
    """

    raced = True

    @staticmethod
    def shown(event):
        """The event with a value that follows from its version."""
        told = decode_item_event(*event)
        state, at = told.state, told.occurred_at
        offer = Offer(Price(float(state.offered_version), "EUR"))
        if state.content is not None:
            version = state.content_version
            content = Content(title=["red mug", "blue cup", "", "green bowl"][version % 4])
            carried = {"offer": Offer(Price(float(version), "EUR")), "offer_version": version} if version % 2 else {}
            return encode_upserted(state.id, content, version, event_id="u", occurred_at=at, **carried)
        if state.offered is not None:
            return encode_offered(state.id, offer, state.offered_version, event_id="o", occurred_at=at)
        return event

    @rule(
        one=st.lists(st.integers(0, 10_000), min_size=1, max_size=6),
        other=st.lists(st.integers(0, 10_000), min_size=1, max_size=6),
        fail=st.lists(st.booleans(), max_size=4),
    )
    def serve_with_two_indexers(self, one, other, fail):
        self.together([(one, fail), (other, [])])


def told(state):
    """What can be told of a state from outside: a version that a deletion ended says nothing any more."""
    content = (state.content, state.content_version, state.carried, state.carried_version) if state.content else None
    offer = (state.offered, state.offered_version) if state.offered else None
    if content is None and offer is None and state.deleted_version == NEVER:
        return None
    return content, offer, state.deleted_version


TestAnyOrder = Indexer.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=15)
TestTwoAtATime = RacingIndexers.TestCase
TestTwoAtATime.settings = settings(max_examples=60, stateful_step_count=15)
