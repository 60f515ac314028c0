"""Asks an engine within a budget of time, and leaves one alone for a while that failed again and again.

A look-up has a deadline and more than one engine to ask: what one of them takes too long for is not worth the wait.
Each engine has a circuit breaker (Nygard: "Release It!", 2007), so that while it is away no look-up waits for it.

What a question says of the engine has three values: it answers, it fails, or nothing. A caller who gives up, or who
allows so little time that a sound engine could not answer either, says nothing; were it a failure, a few impatient
callers would close the engine for everybody, and were it an answer, they would close the circuit to one that is away.
Breakers that wrap a block of code know two values: an exception that they exclude is a success (purgatory, pybreaker,
aiobreaker and circuitbreaker alike). So purgatory's states are asked here one by one, of `Context`, its state machine,
and nothing is said to it where there is nothing to say.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from purgatory.domain.model import CLOSED, Context, OpenedState

from nearkin.core.errors import PermanentError, Unavailable
from nearkin.ops.logs import describe, fields
from nearkin.ops.metrics import Metrics

log = logging.getLogger(__name__)

T = TypeVar("T")

#: So many failures in a row open the circuit: a lone slow answer is no outage.
FAILURES = 5

#: How long an engine is left alone before it is tried again, in seconds; this long a recovery may go unnoticed.
REST_S = 1.0

#: An engine that had less time than this, in seconds, and did not answer, may be sound: it is its caller's haste.
FLOOR_S = 0.05

#: What goes wrong at every question is logged this often, in seconds.
LOG_EVERY_S = 10.0


class TooSlow(Unavailable):
    """An engine did not answer within its share of a look-up's deadline."""


class Engine:
    """One engine as look-ups ask it.

    Args:
        name: as a person knows it, such as ``index``.
        metrics: where what is refused and given up is counted.
        failures: so many in a row open the circuit.
        rest_s: how long it stays open.
        floor_s: what is not answered within less than this says nothing about the engine.
    """

    def __init__(
        self,
        name: str,
        metrics: Metrics,
        *,
        failures: int = FAILURES,
        rest_s: float = REST_S,
        floor_s: float = FLOOR_S,
    ) -> None:
        self.name, self._metrics, self._floor_s = name, metrics, floor_s
        self._circuit = Context(name, failures, rest_s)
        self._state = self._circuit.state
        self._logged = -LOG_EVERY_S
        metrics.circuit_open.labels(engine=name).set(0)

    async def ask(self, call: Callable[[], Awaitable[T]], budget_s: float) -> T:
        """The engine's answer.

        Args:
            call: asks it; may be given up.
            budget_s: how long it may take; where nothing is left, it is not asked.

        Raises:
            TooSlow: it does not answer within the budget.
            Unavailable: it fails, or is left alone now.
            PermanentError: it answers that the question is wrong.
        """
        if budget_s <= 0:
            raise self._too_slow("no time is left to ask it")
        circuit = self._circuit
        try:
            circuit.handle_new_request()
        except OpenedState as error:
            self._count("left_alone")
            raise Unavailable(self.name, "it failed again and again, and is left alone for a moment") from error
        try:
            async with asyncio.timeout(budget_s):
                answer = await call()
        except TimeoutError as error:
            if budget_s >= self._floor_s:
                circuit.handle_exception(error)
            raise self._too_slow(f"no answer within {1000 * budget_s:.0f} ms") from error
        except Unavailable as error:
            circuit.handle_exception(error)
            self._count("away")
            raise
        except PermanentError:
            circuit.handle_end_request()
            raise
        else:
            circuit.handle_end_request()
            return answer
        finally:
            self._tell()

    async def ask_or_do_without(self, call: Callable[[], Awaitable[T]], budget_s: float) -> T | Unavailable:
        """The engine's answer, or why there is none, whatever goes wrong: for what a look-up can do without.

        A password that is not the engine's any more, or a value that cannot be read, is no reason to answer nobody. It
        is counted, and logged once in a while.

        Args:
            call: asks it; may be given up.
            budget_s: how long it may take.
        """
        try:
            return await self.ask(call, budget_s)
        except Unavailable as problem:
            return problem
        except Exception as error:
            self._count("failed")
            detail = describe(error)
            if time.monotonic() - self._logged >= LOG_EVERY_S:
                self._logged = time.monotonic()
                log.error("an engine fails, and look-ups do without", extra=fields(engine=self.name, problem=detail))
            return Unavailable(self.name, f"it fails in a way that is not foreseen: {detail}")

    def _too_slow(self, detail: str) -> TooSlow:
        self._count("slow")
        return TooSlow(self.name, detail)

    def _count(self, why: str) -> None:
        self._metrics.engine_failures.labels(engine=self.name, why=why).inc()

    def _tell(self) -> None:
        """Say what became of the circuit, where anything did."""
        self._circuit.messages.clear()  # are for purgatory's own bus, which nobody listens to here
        if self._circuit.state == self._state:
            return
        self._state = self._circuit.state
        self._metrics.circuit_open.labels(engine=self.name).set(self._state != CLOSED)
        log.warning("an engine's circuit changed", extra=fields(engine=self.name, state=self._state))
