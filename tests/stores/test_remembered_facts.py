"""What is remembered of points: what was told of a version, no other, and not too much of it for too long."""

from hypothesis import given
from hypothesis import strategies as st

from nearkin.core.candidates import ItemFacts
from nearkin.stores.remembered_facts import RememberedFacts

ONE, OTHER = ItemFacts("one"), ItemFacts("other")


class Clock:
    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


def test_facts_are_those_of_a_version_and_no_other():
    facts = RememberedFacts()
    facts.remember(("a", 1), ONE)
    facts.remember(("a", 2), OTHER)
    assert facts.of([("a", 1), ("a", 2), ("a", 3), ("b", 1)]) == [ONE, OTHER, None, None]


def test_a_version_that_says_nothing_is_not_believed():
    facts = RememberedFacts()
    facts.remember(("a", 0), ONE)
    assert facts.of([("a", 0)]) == [None]


def test_nothing_is_believed_for_longer_than_its_age_though_it_is_asked_for_all_the_time():
    clock = Clock()
    facts = RememberedFacts(age_s=10.0, now=clock)
    facts.remember(("a", 1), ONE)
    clock.at = 9.0
    assert facts.of([("a", 1)]) == [ONE]
    clock.at = 11.0
    assert facts.of([("a", 1)]) == [None]


def test_what_was_not_asked_for_of_late_makes_room():
    facts = RememberedFacts(most=8)
    facts.remember(("kept", 1), OTHER)
    for number in range(1, 40):
        facts.remember(("new", number), ONE)
        assert facts.of([("kept", 1)]) == [OTHER]
    assert facts.of([("new", 1)]) == [None]


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 3)), max_size=80), st.integers(2, 10))
def test_what_is_told_was_remembered_and_what_was_remembered_last_is_told(steps, most):
    facts = RememberedFacts(most=most)
    for item, version in steps:
        held = ItemFacts(f"{item}", first_seen=version)
        facts.remember((held.id, version), held)
        assert facts.of([(held.id, version)]) == [held]
        for each in range(13):
            (told,) = facts.of([(f"{each}", version)])
            assert told in (None, ItemFacts(f"{each}", first_seen=version))
