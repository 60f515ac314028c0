"""Asks an engine within a budget of time, and leaves one alone for a while that failed again and again.

A look-up has a deadline and more than one engine to ask: what one of them takes too long for is not worth the wait.
Each engine has a circuit breaker (Nygard: "Release It!", 2007), so that while it is away no look-up waits for it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import CLOSED, OpenedState

from nearkin.core.errors import PermanentError, Unavailable
from nearkin.ops.logs import fields
from nearkin.ops.metrics import Metrics

log = logging.getLogger(__name__)

T = TypeVar("T")

#: So many failures in a row open the circuit: a lone slow answer is no outage.
FAILURES = 5

#: How long an engine is left alone before it is tried again, in seconds; this long a recovery may go unnoticed.
REST_S = 1.0


class TooSlow(Unavailable):
    """An engine did not answer within its share of a look-up's deadline."""


class Engine:
    """One engine as look-ups ask it.

    Args:
        name: as a person knows it, such as ``index``.
        metrics: where what is refused and given up is counted.
        failures: so many in a row open the circuit.
        rest_s: how long it stays open.
    """

    def __init__(self, name: str, metrics: Metrics, *, failures: int = FAILURES, rest_s: float = REST_S) -> None:
        self.name, self._metrics = name, metrics
        # A caller who gives up, and a question that is refused, say nothing about the engine.
        self._breakers = AsyncCircuitBreakerFactory(failures, rest_s, exclude=[PermanentError, asyncio.CancelledError])
        self._breakers.add_listener(self._tell)
        metrics.circuit_open.labels(engine=name).set(0)

    async def ask(self, call: Callable[[], Awaitable[T]], budget_s: float) -> T:
        """The engine's answer.

        Args:
            call: asks it; may be given up.
            budget_s: how long it may take.

        Raises:
            TooSlow: it does not answer within the budget.
            Unavailable: it fails, or is left alone now.
            PermanentError: it answers that the question is wrong.
        """
        breaker = await self._breakers.get_breaker(self.name)
        try:
            async with breaker:
                try:
                    async with asyncio.timeout(budget_s):
                        return await call()
                except TimeoutError as error:
                    self._metrics.engine_failures.labels(engine=self.name, why="slow").inc()
                    raise TooSlow(self.name, f"no answer within {1000 * budget_s:.0f} ms") from error
                except Unavailable:
                    self._metrics.engine_failures.labels(engine=self.name, why="away").inc()
                    raise
        except OpenedState as error:
            self._metrics.engine_failures.labels(engine=self.name, why="left_alone").inc()
            raise Unavailable(self.name, "it failed again and again, and is left alone for a moment") from error

    def _tell(self, _name: str, what: str, event: object) -> None:
        if what != "state_changed":
            return
        state = getattr(event, "state", "")
        self._metrics.circuit_open.labels(engine=self.name).set(state != CLOSED)
        log.warning("an engine's circuit changed", extra=fields(engine=self.name, state=state))
