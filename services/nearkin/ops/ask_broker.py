"""Ask a broker something beside the consumer that serves: a connection of its own, closed whatever happens."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from nearkin.core.errors import Unavailable
from nearkin.ops.kafka_security import PLAINTEXT, KafkaSecurity


@contextlib.asynccontextmanager
async def ask_broker(
    bootstrap: str, timeout_s: float, security: KafkaSecurity = PLAINTEXT
) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of no group, connected.

    Args:
        bootstrap: the brokers.
        timeout_s: how long connecting and asking may take together.
        security: how the connection is protected.

    Raises:
        Unavailable: the broker does not answer, or not in time.
    """
    asker = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, request_timeout_ms=int(timeout_s * 1000), **security.options()
    )
    try:
        async with asyncio.timeout(timeout_s):
            await asker.start()
            yield asker
    except (KafkaError, OSError, TimeoutError) as error:
        raise Unavailable("broker", f"{bootstrap} does not answer{security.hint}") from error
    finally:
        # Closing one that could not connect raises what its own tasks were cancelled with.
        with contextlib.suppress(asyncio.CancelledError, KafkaError, OSError):
            await asker.stop()
