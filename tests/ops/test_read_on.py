"""What is taken follows without a gap upon where the consumer was sent, whatever is thrown away between."""

import random

import pytest

from nearkin.ops.read_on import ReadOn

PLACE = ("t", 0)


@pytest.fixture
def read_on():
    at = ReadOn()
    at.sent({PLACE: 5})
    at.asked_again({PLACE: 5})
    return at


def test_what_follows_is_taken(read_on):
    assert read_on.take(PLACE, 5, 7)
    assert read_on.take(PLACE, 8, 8)
    assert read_on.to_ask_again([PLACE]) == {}


def test_what_leaves_a_gap_is_asked_for_again_and_taken_where_the_log_is_so(read_on):
    assert not read_on.take(PLACE, 6, 9)
    assert not read_on.take(PLACE, 5, 9), "before the consumer was sent back, nothing tells what lies between"
    assert read_on.to_ask_again([PLACE]) == {PLACE: 5}
    read_on.asked_again({PLACE: 5})
    assert read_on.take(PLACE, 6, 9)
    assert read_on.take(PLACE, 10, 10)
    assert not read_on.take(PLACE, 12, 12), "another gap is another question"


def test_what_lies_before_is_taken_at_once_as_the_broker_sends_back_who_is_beyond_the_end_of_the_log(read_on):
    assert read_on.take(PLACE, 0, 3)
    assert read_on.take(PLACE, 4, 9)


def test_what_was_on_its_way_when_the_consumer_was_sent_elsewhere_is_not_taken_though_it_seems_to_follow(read_on):
    read_on.sent({PLACE: 0})
    assert not read_on.take(PLACE, 0, 3), "it may be of the log that was there before"
    assert read_on.to_ask_again([PLACE]) == {PLACE: 0}
    read_on.asked_again({PLACE: 0})
    assert read_on.take(PLACE, 0, 3)


def test_what_is_thrown_away_is_asked_for_again_though_nothing_comes_after_it(read_on):
    read_on.drop([PLACE])
    assert read_on.to_ask_again([PLACE]) == {PLACE: 5}
    read_on.asked_again({PLACE: 5})
    assert read_on.to_ask_again([PLACE]) == {}


def test_what_found_no_room_is_asked_for_again(read_on):
    assert read_on.take(PLACE, 5, 7)
    read_on.give_back(PLACE, 5, 7)
    assert read_on.to_ask_again([PLACE]) == {PLACE: 5}


def test_what_found_no_room_does_not_undo_that_the_consumer_was_sent_elsewhere(read_on):
    assert read_on.take(PLACE, 5, 7)
    read_on.sent({PLACE: 0})
    read_on.give_back(PLACE, 5, 7)
    assert read_on.to_ask_again([PLACE]) == {PLACE: 0}


def test_who_is_sent_elsewhere_while_asking_again_asks_from_there(read_on):
    read_on.drop([PLACE])
    asked = read_on.to_ask_again([PLACE])
    read_on.sent({PLACE: 0})
    read_on.asked_again(asked)
    assert read_on.to_ask_again([PLACE]) == {PLACE: 0}


def test_nothing_is_taken_of_a_new_assignment_before_it_is_known_where_it_begins(read_on):
    read_on.forget()
    assert not read_on.take(PLACE, 5, 7)
    assert read_on.to_ask_again([PLACE]) == {}
    read_on.sent({PLACE: 3})
    assert read_on.to_ask_again([PLACE]) == {PLACE: 3}
    assert read_on.to_ask_again([("t", 1)]) == {}


@pytest.mark.parametrize("number", range(50))
def test_of_a_consumer_that_throws_away_at_random_everything_is_taken_in_order(number):
    draw = random.Random(number)
    read_on, committed, at, taken, log = ReadOn(), 0, 0, [], 200
    read_on.sent({PLACE: 0})
    while not taken or taken[-1] != log - 1:
        back = read_on.to_ask_again([PLACE])
        for place, offset in back.items():
            if draw.random() < 0.8:  # the others fail
                at = offset
                read_on.asked_again({place: offset})
        first, last = at, min(at + draw.randrange(1, 9), log) - 1
        at = last + 1
        chance = draw.random()
        if first > last:
            assert read_on.to_ask_again([PLACE]), "at the end of the log, with something missing that nobody asks for"
        elif chance < 0.1 and not back:
            log += at == log  # nobody hears of it, until one more comes
        elif chance < 0.2:
            read_on.drop([PLACE])
        elif chance < 0.3 and taken:
            read_on.forget()
            committed = at = draw.randrange(committed, taken[-1] + 2)
            if draw.random() < 0.5 and at < log:
                assert not read_on.take(PLACE, at, at)  # fetched before it is known where to begin
                at += 1
            read_on.sent({PLACE: committed})
            taken.append(committed - 1)
        elif read_on.take(PLACE, first, last):
            assert first <= (taken[-1] if taken else -1) + 1, "a gap was taken"
            taken.append(last)
