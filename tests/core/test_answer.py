from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from nearkin.core.answer import LoggedAnswer, hash_content, is_sampled
from nearkin.core.exploration import Policy
from nearkin.core.item import Content

ids = st.text(max_size=40)


def answer(request_id="r", anchor="a", surface="page", policy=Policy.GREEDY):
    return LoggedAnswer(request_id, 0, anchor, 10, "combined", (), surface=surface, policy=policy)


@given(ids)
def test_a_rate_of_one_takes_every_answer_and_a_rate_of_nothing_none(request_id):
    assert is_sampled(request_id, 1.0)
    assert not is_sampled(request_id, 0.0)


@given(ids, st.floats(0, 1), st.floats(0, 1))
def test_what_a_rate_takes_a_higher_one_takes_too(request_id, one, other):
    low, high = sorted((one, other))
    assert is_sampled(request_id, low) <= is_sampled(request_id, high)


def test_a_rate_is_the_share_that_it_takes():
    taken = sum(is_sampled(str(number), 0.3) for number in range(20_000))
    assert abs(taken / 20_000 - 0.3) < 5 * (0.3 * 0.7 / 20_000) ** 0.5


def test_which_answers_are_sampled_never_changes():
    """Servers of two releases, and a reader of the log, must agree."""
    assert [number for number in range(20) if is_sampled(str(number), 0.5)] == [1, 2, 5, 6, 7, 13, 14, 15, 16, 19]


def test_the_event_id_tells_look_ups_apart_and_is_the_same_for_one_that_is_sent_again():
    assert answer().event_id == answer(policy=Policy.SHUFFLED).event_id
    mug, cup = hash_content(Content(title="mug")), hash_content(Content(title="cup"))
    others = [
        answer(request_id="s"),
        answer(anchor="b"),
        answer(surface="cart"),
        replace(answer(), ranking="content"),
        replace(answer(anchor=None), content_hash=mug),
        replace(answer(anchor=None), content_hash=cup),
    ]
    assert len({one.event_id for one in (answer(), *others)}) == 7


def test_one_content_has_one_hash_in_whatever_order_its_attributes_come():
    one = Content(title="mug", attributes={"colour": "red", "size": "L"}, tags=("a", "b"))
    assert hash_content(one) == hash_content(replace(one, attributes={"size": "L", "colour": "red"}))
    others = [replace(one, tags=("b", "a")), replace(one, attributes={}), replace(one, title="", description="mug")]
    assert len({hash_content(each) for each in (one, *others)}) == 4


def test_an_answer_is_explored_where_the_draw_was_not_greedy():
    assert [answer(policy=policy).is_explored for policy in Policy] == [False, True, True]
