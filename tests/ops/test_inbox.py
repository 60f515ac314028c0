"""What comes waits while the inbox is full, and nothing of what is thrown away is taken."""

import asyncio

import pytest

from nearkin.ops.inbox import Inbox
from nearkin.ops.record import Record


def records(*offsets):
    return [Record("t", 0, offset, 0, None, b"") for offset in offsets]


def offsets(letters):
    return [letter.record.offset for letter in letters]


async def until_idle():
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_comes_at_once_is_not_divided_and_the_next_waits_for_room():
    inbox = Inbox(3)
    await inbox.put(1, records(0, 1, 2, 3, 4))
    waiting = asyncio.create_task(inbox.put(1, records(5)))
    await until_idle()
    held = [(len(inbox), waiting.done())]

    taken = offsets(inbox.take(2))
    await until_idle()
    held.append((len(inbox), waiting.done()))
    taken += offsets(inbox.take(1))
    await until_idle()
    held.append((len(inbox), waiting.done()))

    assert taken == [0, 1, 2]
    assert held == [(5, False), (3, False), (3, True)]
    assert offsets(inbox.take(10)) == [3, 4, 5]


async def test_what_is_thrown_away_is_not_taken_and_makes_room():
    inbox = Inbox(2)
    await inbox.put(1, records(0, 1))
    waiting = asyncio.create_task(inbox.put(2, records(7)))
    await until_idle()

    inbox.clear()
    await waiting

    assert [(letter.generation, letter.record.offset) for letter in inbox.take(10)] == [(2, 7)]


@pytest.mark.parametrize("number", [1, 3])
async def test_whoever_waits_for_a_number_goes_on_when_so_many_are_there(number):
    inbox, seen = Inbox(5), []
    waiting = asyncio.create_task(inbox.wait(number))
    for offset in range(4):
        await until_idle()
        seen.append(waiting.done())
        await inbox.put(1, records(offset))
    await waiting

    assert seen == [count >= number for count in range(4)]
