"""An engine that fails is left alone for a while; callers who are in a hurry say nothing about it."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from nearkin.core.errors import InvalidRequest, Unavailable
from nearkin.lookup.engines import Engine, TooSlow
from nearkin.ops.metrics import Metrics


class Asked:
    """An engine that answers what a test says, and counts how often it was asked."""

    def __init__(self, rest_s: float = 60.0) -> None:
        self.metrics = Metrics(CollectorRegistry())
        self.engine = Engine("index", self.metrics, failures=3, rest_s=rest_s, floor_s=0.01)
        self.problem: BaseException | None = None
        self.asked = 0

    async def answer(self) -> str:
        self.asked += 1
        if self.problem:
            raise self.problem
        return "an answer"

    async def never(self) -> str:
        self.asked += 1
        await asyncio.Event().wait()
        return "never"

    async def fail(self, times: int) -> None:
        self.problem = Unavailable("index", "the test took it away")
        for _ in range(times):
            with pytest.raises(Unavailable):
                await self.engine.ask(self.answer, 1.0)
        self.problem = None

    async def is_left_alone(self) -> bool:
        before = self.asked
        try:
            await self.engine.ask(self.answer, 1.0)
        except Unavailable:
            return self.asked == before
        return False

    def failures(self, why: str) -> float:
        named = {"engine": "index", "why": why}
        return self.metrics.registry.get_sample_value("nearkin_engine_failures_total", named) or 0.0

    @property
    def circuit_open(self) -> float | None:
        return self.metrics.registry.get_sample_value("nearkin_circuit_open_ratio", {"engine": "index"})


async def test_an_engine_that_failed_often_enough_in_a_row_is_left_alone():
    one = Asked()
    await one.fail(2)
    assert await one.engine.ask(one.answer, 1.0) == "an answer"
    await one.fail(2)
    assert not await one.is_left_alone(), "the answer between them began a new row"
    await one.fail(3)
    assert await one.is_left_alone()
    assert one.circuit_open == 1
    assert (one.failures("away"), one.failures("left_alone")) == (7, 1)


async def test_it_is_tried_again_after_a_rest_and_is_itself_again_where_it_answers():
    one = Asked(rest_s=0.0)
    await one.fail(3)
    assert one.circuit_open == 1
    assert await one.engine.ask(one.answer, 1.0) == "an answer"
    assert one.circuit_open == 0


async def test_one_that_is_slow_again_and_again_is_left_alone():
    one = Asked()
    for _ in range(3):
        with pytest.raises(TooSlow):
            await one.engine.ask(one.never, 0.01)
    assert await one.is_left_alone()


async def test_callers_who_are_in_a_hurry_do_not_close_it_for_others():
    one = Asked()
    for _ in range(20):
        with pytest.raises(TooSlow):
            await one.engine.ask(one.never, 0.001)
    assert not await one.is_left_alone()
    assert one.failures("slow") == 20


async def test_an_engine_is_not_asked_where_no_time_is_left():
    one = Asked()
    for budget_s in (0.0, -1.0):
        with pytest.raises(TooSlow):
            await one.engine.ask(one.answer, budget_s)
    assert one.asked == 0


async def test_a_caller_who_gives_up_neither_fails_the_engine_nor_heals_it():
    one = Asked(rest_s=0.0)
    await one.fail(3)
    for hasty in (asyncio.timeout(0.001), asyncio.timeout(0.001)):
        with pytest.raises(TimeoutError):
            async with hasty:
                await one.engine.ask(one.never, 1.0)
    assert one.circuit_open == 1, "nobody knows yet whether it is back"
    with pytest.raises(TooSlow):
        await one.engine.ask(one.never, 0.001)
    assert one.circuit_open == 1
    await one.fail(1)
    assert one.circuit_open == 1
    await one.engine.ask(one.answer, 1.0)
    assert one.circuit_open == 0


async def test_a_question_that_is_refused_was_answered():
    one = Asked()
    one.problem = InvalidRequest("is wrong", remedy="ask another")
    for _ in range(9):
        with pytest.raises(InvalidRequest):
            await one.engine.ask(one.answer, 1.0)
    one.problem = None
    assert not await one.is_left_alone()


async def test_what_can_be_done_without_is_told_and_counted_whatever_goes_wrong():
    one = Asked()
    assert await one.engine.ask_or_do_without(one.answer, 1.0) == "an answer"
    one.problem = RuntimeError("secret-words")
    without = await one.engine.ask_or_do_without(one.answer, 1.0)
    assert isinstance(without, Unavailable)
    assert "RuntimeError" in str(without)
    assert "secret-words" not in str(without)
    one.problem = Unavailable("index", "the test took it away")
    assert await one.engine.ask_or_do_without(one.answer, 1.0) is one.problem
    assert (one.failures("failed"), one.failures("away")) == (1, 1)
