"""Few calls work at a time; who would not get a turn in time is told so at once, and who does not, soon."""

import asyncio
import contextlib

import pytest

from nearkin.core.errors import Overloaded
from nearkin.lookup.turns import PATIENCE_S, Turns


async def wait(turns: Turns) -> None:
    async with turns.take():
        pass


@contextlib.asynccontextmanager
async def waiting(turns: Turns, number: int):
    """So many calls that wait for a turn, and are called off afterwards."""
    calls = [asyncio.create_task(wait(turns)) for _ in range(number)]
    await asyncio.sleep(0)
    try:
        yield calls
    finally:
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def test_no_more_work_at_a_time_than_have_turns_and_the_first_that_waits_is_next() -> None:
    turns, order = Turns(1), []

    async def work(name: str) -> None:
        async with turns.take():
            order.append(f"{name} begins")
            await asyncio.sleep(0)
            order.append(f"{name} ends")

    await asyncio.gather(work("a"), work("b"))

    assert order == ["a begins", "a ends", "b begins", "b ends"]


async def test_who_gets_no_turn_in_time_is_refused_and_the_next_ones_are_served() -> None:
    turns = Turns(1)
    async with turns.take():
        with pytest.raises(Overloaded, match="no turn came within 250 ms"):
            await wait(turns)

    await wait(turns)


async def test_who_would_wait_too_long_as_turns_take_of_late_is_refused_at_once() -> None:
    turns = Turns(2)
    for _ in range(50):
        async with turns.take():
            await asyncio.sleep(0.01)
    fit = int(2 * PATIENCE_S / turns._turn_s) + 1

    async with turns.take(), turns.take(), waiting(turns, fit) as calls:
        with pytest.raises(Overloaded, match=f"{fit} others wait for a turn"):
            await wait(turns)
        assert not any(call.done() for call in calls), "those that wait have still their chance"


async def test_a_server_that_is_idle_again_refuses_nobody_however_long_turns_took() -> None:
    turns = Turns(1)
    async with turns.take():
        await asyncio.sleep(0.05)
    turns._turn_s = 60.0

    await wait(turns)

    async with turns.take(), waiting(turns, 1):
        with pytest.raises(Overloaded, match="1 others wait"):
            await wait(turns)


async def test_calls_that_are_called_off_while_they_wait_leave_no_trace() -> None:
    turns = Turns(1)
    async with turns.take():
        async with waiting(turns, 5):
            pass
        assert turns._waiting == 0
    await wait(turns)
