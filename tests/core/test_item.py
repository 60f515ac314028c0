"""An item's state comes out the same whatever the order, repetition and restarts of its events."""

from dataclasses import dataclass
from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nearkin.contracts.stored import from_payload, to_payload
from nearkin.core.item import (
    NEVER,
    Availability,
    Content,
    ItemState,
    Offer,
    Price,
    Status,
    Versions,
    deleted,
    merge,
    offered,
    upserted,
)
from nearkin.core.ports import IndexedItem

MUG = Content(title="Blue mug")
CUP = Content(title="Red cup")
HIDDEN = Content(title="Blue mug", status=Status.HIDDEN)
CHEAP = Offer(Price(1.0, "EUR"))
DEAR = Offer(Price(9.0, "EUR"))


def after(*events: ItemState) -> ItemState:
    """The state after these events of one item, in this order."""
    return reduce(merge, events)


def in_any_order(*events: ItemState) -> ItemState:
    """The state after these events, the same forwards, backwards and rotated."""
    state = after(*events)
    for shift in range(len(events)):
        rotated = events[shift:] + events[:shift]
        assert after(*rotated) == after(*reversed(rotated)) == state
    return state


class TestContent:
    def test_the_newest_version_wins(self) -> None:
        assert in_any_order(upserted("i", MUG, 1), upserted("i", CUP, 2)).content == CUP

    def test_a_hidden_item_is_present_but_not_visible(self) -> None:
        state = upserted("i", HIDDEN, 1)
        assert state.is_present
        assert not state.is_visible

    def test_one_version_with_two_values_ends_the_same_in_every_order(self) -> None:
        assert in_any_order(upserted("i", MUG, 1), upserted("i", CUP, 1)).content == CUP

    def test_the_order_of_a_mapping_does_not_break_a_tie(self) -> None:
        one = Content(attributes={"a": "1", "b": "2"})
        same = Content(attributes={"b": "2", "a": "1"})
        other = Content(attributes={"b": "1", "a": "1"})
        assert after(upserted("i", one, 1), upserted("i", other, 1)) == after(
            upserted("i", other, 1), upserted("i", same, 1)
        )


class TestDeletion:
    @pytest.mark.parametrize("version", [5, 6])
    def test_ends_content_of_its_own_and_of_older_versions(self, version: int) -> None:
        state = in_any_order(upserted("i", MUG, 5), deleted("i", version))
        assert (state.is_present, state.is_deleted) == (False, True)

    def test_leaves_newer_content(self) -> None:
        state = in_any_order(deleted("i", 4), upserted("i", MUG, 5))
        assert (state.is_present, state.is_deleted) == (True, False)

    def test_leaves_nothing_but_the_versions(self) -> None:
        state = in_any_order(upserted("i", MUG, 5, CHEAP, 6), deleted("i", 7), offered("i", DEAR, 3))
        assert state == ItemState("i", content_version=5, offered_version=6, deleted_version=7)

    def test_that_comes_before_its_upsert_still_ends_it(self) -> None:
        assert not after(deleted("i", 5), upserted("i", MUG, 4)).is_present

    def test_ends_the_offer_too(self) -> None:
        state = in_any_order(offered("i", DEAR, 3), deleted("i", 4), upserted("i", MUG, 5))
        assert state.offer == Offer()

    def test_an_upsert_revives_the_item_with_the_offer_that_it_brings_however_old(self) -> None:
        state = in_any_order(offered("i", DEAR, 3), deleted("i", 4), upserted("i", MUG, 5, CHEAP, 2))
        assert state.offer == CHEAP

    def test_a_tombstone_is_no_item(self) -> None:
        state = deleted("i", 4)
        assert (state.is_present, state.is_visible, state.is_deleted) == (False, False, True)


class TestOffer:
    def test_the_newest_wins_whichever_event_brought_it(self) -> None:
        assert in_any_order(upserted("i", MUG, 1, CHEAP, 5), offered("i", DEAR, 6)).offer == DEAR
        assert in_any_order(upserted("i", MUG, 1, CHEAP, 6), offered("i", DEAR, 5)).offer == CHEAP

    def test_stays_when_newer_content_brings_none(self) -> None:
        assert in_any_order(upserted("i", MUG, 1, CHEAP, 1), upserted("i", CUP, 2)).offer == CHEAP

    def test_waits_for_its_item(self) -> None:
        assert not offered("i", DEAR, 1).is_present
        assert in_any_order(offered("i", DEAR, 1), upserted("i", MUG, 2)).offer == DEAR

    def test_content_that_comes_twice_carries_the_newer_of_its_offers(self) -> None:
        state = in_any_order(
            upserted("i", MUG, 10, CHEAP, 5), upserted("i", MUG, 10, DEAR, 8), deleted("i", 9), offered("i", CHEAP, 7)
        )
        assert state.offer == DEAR

    def test_an_item_without_one_is_sold_everywhere_without_a_price(self) -> None:
        assert upserted("i", MUG, 1).offer == Offer(None, Availability.IN_STOCK, ())


def test_states_of_two_items_are_not_merged() -> None:
    with pytest.raises(ValueError, match="two items"):
        merge(deleted("i", 1), deleted("j", 1))


@dataclass(frozen=True)
class Event:
    """What a producer says, kept apart from the states under test."""

    content: Content | None = None
    content_version: int = NEVER
    offer: Offer | None = None
    offer_version: int = NEVER
    deleted_version: int = NEVER

    @property
    def state(self) -> ItemState:
        if self.content is not None:
            return upserted("i", self.content, self.content_version, self.offer, self.offer_version)
        if self.offer is not None:
            return offered("i", self.offer, self.offer_version)
        return deleted("i", self.deleted_version)


@dataclass(frozen=True)
class Resolved:
    """What a look-up may see of an item."""

    content: Content | None
    offer: Offer | None
    is_deleted: bool
    versions: Versions


def resolve(events: list[Event]) -> Resolved:
    """The reference: looks at all events at once, as the contract words it, and merges nothing."""
    deletion = max((event.deleted_version for event in events), default=NEVER)
    upserts = [event for event in events if event.content is not None]
    offers = [event for event in events if event.offer is not None]
    newest = max((event.content_version for event in upserts), default=NEVER)
    newest_offer = max((event.offer_version for event in offers), default=NEVER)
    content, offer = None, None
    if newest > deletion:
        current = [event for event in upserts if event.content_version == newest]
        content = max((event.content for event in current), key=repr)
        brought = [(event.offer_version, repr(event.offer), 1, event.offer) for event in current if event.offer]
        since = [(event.offer_version, repr(event.offer), 0, event.offer) for event in offers]
        since = [entry for entry in since if entry[0] > deletion]
        # Of one version, what the content brought stands before what was offered apart from it.
        in_force = max(brought + since, key=lambda entry: (entry[0], entry[2], entry[1]), default=None)
        offer = in_force[3] if in_force else Offer()
    return Resolved(content, offer, deletion > NEVER and deletion >= newest, Versions(newest, newest_offer, deletion))


def seen(state: ItemState) -> Resolved:
    return Resolved(state.content, state.offer if state.is_present else None, state.is_deleted, state.versions)


def restarted(state: ItemState) -> ItemState:
    """The state after it went to the index and came back."""
    return from_payload(to_payload(IndexedItem(state))).state


# Few versions and values, so that they meet often.
versions = st.integers(0, 6)
contents = st.builds(Content, title=st.sampled_from("abc"), status=st.sampled_from(Status))
offers = st.builds(
    Offer, price=st.none() | st.builds(Price, st.sampled_from([1.0, 2.0]), st.just("EUR")), markets=st.just(("DE",))
)
events = st.one_of(
    st.builds(Event, content=contents, content_version=versions),
    st.builds(Event, content=contents, content_version=versions, offer=offers, offer_version=versions),
    st.builds(Event, offer=offers, offer_version=versions),
    st.builds(Event, deleted_version=versions),
)
histories = st.lists(events, min_size=1, max_size=6)
states = histories.map(lambda history: after(*(event.state for event in history)))


@given(states, states)
def test_merge_is_commutative(one: ItemState, other: ItemState) -> None:
    assert merge(one, other) == merge(other, one)


@given(states, states, states)
def test_merge_is_associative(one: ItemState, two: ItemState, three: ItemState) -> None:
    assert merge(merge(one, two), three) == merge(one, merge(two, three))


@given(states, states)
def test_merge_is_idempotent(one: ItemState, other: ItemState) -> None:
    assert merge(one, one) == one
    assert merge(merge(one, other), other) == merge(one, other)


@given(histories, st.randoms())
def test_any_order_gives_what_the_reference_says(history: list[Event], random) -> None:
    shuffled = history + random.sample(history, k=random.randint(0, len(history)))
    random.shuffle(shuffled)
    assert seen(after(*(event.state for event in shuffled))) == resolve(history)


class AnItemOverItsLife(RuleBasedStateMachine):
    """Two replicas see the same events late, twice and in different orders, restart, and read each other."""

    @initialize(event=events)
    def begins(self, event: Event) -> None:
        self.history = [event]
        self.late: list[Event] = []
        self.left = self.right = event.state

    @rule(event=events)
    def happens(self, event: Event) -> None:
        self.history.append(event)
        self.left = merge(self.left, event.state)
        self.late.append(event)

    @rule(data=st.data())
    def arrives_late(self, data: st.DataObject) -> None:
        if self.late:
            event = self.late.pop(data.draw(st.integers(0, len(self.late) - 1)))
            self.right = merge(self.right, event.state)

    @rule(data=st.data())
    def is_repeated(self, data: st.DataObject) -> None:
        self.left = merge(self.left, data.draw(st.sampled_from(self.history)).state)

    @rule(data=st.data())
    def a_batch_is_merged_before_it_is_applied(self, data: st.DataObject) -> None:
        batch = data.draw(st.lists(events, min_size=1, max_size=4))
        self.history += batch
        self.late += batch
        self.left = merge(self.left, after(*(event.state for event in batch)))

    @rule()
    def restarts(self) -> None:
        self.left, self.right = restarted(self.left), restarted(self.right)

    @rule()
    def the_topic_is_replayed_onto_the_index(self) -> None:
        self.left = after(self.left, *(event.state for event in self.history))

    @rule()
    def the_late_one_reads_the_other(self) -> None:
        self.right = merge(self.right, self.left)
        self.late.clear()
        assert self.right == self.left

    @invariant()
    def each_shows_what_its_events_say(self) -> None:
        if hasattr(self, "history"):
            assert seen(self.left) == resolve(self.history)
            if not self.late:
                assert self.right == self.left

    def teardown(self) -> None:
        if hasattr(self, "history"):
            for event in reversed(self.late):
                self.right = merge(self.right, event.state)
            assert self.right == self.left


TestAnItemOverItsLife = AnItemOverItsLife.TestCase
TestAnItemOverItsLife.settings = settings(max_examples=150, stateful_step_count=30)
