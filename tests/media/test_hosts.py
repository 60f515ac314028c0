import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearkin.core.errors import MediaUnavailable, UnusableMedia
from nearkin.media import hosts
from nearkin.media.hosts import FIRST_REST_S, LONGEST_REST_S, PATIENCE, Hosts, Rest


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def failure(reason="unreachable", retry_after_s=0.0):
    return MediaUnavailable("it is down", remedy="wait", reason=reason, retry_after_s=retry_after_s)


async def ask(turns, name="a.test", error=None):
    async with turns.turn(name):
        if error is not None:
            raise error


async def fail(turns, clock, times=PATIENCE, **options):
    for _ in range(times):
        with pytest.raises(MediaUnavailable, match="it is down"):
            await ask(turns, error=failure(**options))
        clock.now += 0.001


async def test_a_host_that_fails_again_and_again_rests(clock):
    turns = Hosts(4, 2, clock, lambda: 0.0)
    await fail(turns, clock, PATIENCE - 1)
    await ask(turns)
    await fail(turns, clock)

    with pytest.raises(MediaUnavailable) as refusal:
        await ask(turns)
    await ask(turns, "b.test")

    assert refusal.value.reason == "resting"
    assert 0 < refusal.value.retry_after_s <= FIRST_REST_S


async def test_rests_grow_while_it_fails_and_end_with_a_success(clock):
    turns, rests = Hosts(4, 2, clock, lambda: 0.0), []
    await fail(turns, clock)
    for _ in range(12):
        with pytest.raises(MediaUnavailable) as refusal:
            await ask(turns)
        rests.append(round(refusal.value.retry_after_s))
        clock.now += refusal.value.retry_after_s
        await fail(turns, clock, 1)

    clock.now += LONGEST_REST_S
    await ask(turns)
    await fail(turns, clock, PATIENCE - 1)
    await ask(turns)

    assert rests == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


async def test_after_a_rest_one_request_tries_and_the_others_do_not_wait_for_it(clock):
    turns = Hosts(4, 4, clock, lambda: 0.0)
    await fail(turns, clock)
    clock.now += FIRST_REST_S
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def trial():
        async with turns.turn("a.test"):
            inside.set()
            await go_on.wait()

    trying = asyncio.create_task(trial())
    await inside.wait()
    with pytest.raises(MediaUnavailable, match="left alone"):
        await ask(turns)
    go_on.set()
    await trying

    await ask(turns)


async def test_a_host_that_asks_for_a_rest_gets_it_at_once_within_bounds(clock):
    turns = Hosts(4, 2, clock, lambda: 0.0)
    await fail(turns, clock, 1, reason="busy", retry_after_s=999_999)

    with pytest.raises(MediaUnavailable) as refusal:
        await ask(turns)

    assert refusal.value.retry_after_s == pytest.approx(LONGEST_REST_S, abs=1)


@pytest.mark.parametrize(
    "error", [failure("not_found"), UnusableMedia("it is text", remedy="send a picture", reason="unknown_kind")]
)
async def test_what_is_wrong_with_an_object_is_no_fault_of_its_host(clock, error):
    turns = Hosts(4, 2, clock)
    for _ in range(10):
        with pytest.raises(type(error)):
            await ask(turns, error=error)

    await ask(turns)


async def test_requests_that_fail_together_count_once(clock):
    turns, together = Hosts(8, 8, clock), asyncio.Barrier(8)

    async def one():
        async with turns.turn("a.test"):
            await together.wait()
            raise failure()

    found = await asyncio.gather(*(one() for _ in range(8)), return_exceptions=True)

    assert all(isinstance(error, MediaUnavailable) for error in found)
    await ask(turns)


async def test_a_slow_host_takes_no_turn_of_the_others(clock):
    turns, go_on = Hosts(3, 2, clock), asyncio.Event()

    async def slow():
        async with turns.turn("slow.test"):
            await go_on.wait()

    waiting = [asyncio.create_task(slow()) for _ in range(20)]
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await ask(turns, "quick.test")
    go_on.set()
    await asyncio.gather(*waiting)


async def test_made_up_names_are_forgotten_and_one_that_rests_is_not(clock, monkeypatch):
    monkeypatch.setattr(hosts, "MOST_HOSTS", 64)
    turns = Hosts(4, 2, clock, lambda: 0.0)
    await fail(turns, clock)

    for number in range(1000):
        await ask(turns, f"{number}.test")

    assert len(turns) <= 64
    with pytest.raises(MediaUnavailable, match="left alone"):
        await ask(turns)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1e9), st.floats(0, 1), st.booleans())))
def test_a_rest_is_never_longer_than_the_longest(steps):
    rest, now = Rest(), 0.0
    for took, asked_for_s, share, succeeded in steps:
        began, now = now, now + took
        if succeeded:
            rest.succeeded()
            assert rest.left(now) == 0
        else:
            rest.failed(began, now, asked_for_s, share)
            assert 0 <= rest.left(now) <= LONGEST_REST_S + 1e-6
