"""A look-up server is stopped under load, as in a rolling upgrade: the others answer, and no caller notices."""

import asyncio
import time
from collections import Counter

import pytest

from faults.item_stream import upsert
from faults.running_parts import Part, Parts
from nearkin.client.lookup import LookupClient
from nearkin.core.errors import NearkinError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: Calls a second, and for how long, with a server stopped after each third of it.
RATE, SECONDS = 80, 9.0


async def load(client: LookupClient, stop: list[Part]) -> tuple[Counter[str], list[int]]:
    """Look up at a rate while one server after the other is stopped and started again; outcomes and exit statuses."""
    outcomes: Counter[str] = Counter()
    statuses: list[int] = []

    async def call(number: int) -> None:
        try:
            if number % 4:
                await client.items(["mug-1"], timeout_s=30)
            else:
                await client.similar(item_id="mug-1", timeout_s=30)
            outcomes["answered"] += 1
        except NearkinError as error:
            outcomes[f"{type(error).__name__}: {error}"] += 1

    async def roll() -> None:
        for part in stop:
            await asyncio.sleep(SECONDS / 4)
            statuses.append(await asyncio.to_thread(part.stop))
            part.start()
            while not part.is_ready:  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.1)

    rolling = asyncio.create_task(roll())
    began, calls = time.monotonic(), []
    while not rolling.done() or time.monotonic() - began < SECONDS:
        await asyncio.sleep(max(0.0, began + len(calls) / RATE - time.monotonic()))
        calls.append(asyncio.create_task(call(len(calls))))
    await asyncio.gather(rolling, *calls)
    return outcomes, statuses


def test_servers_that_are_stopped_in_turn_fail_no_call(parts: Parts) -> None:
    # Here it is about the stop; what a busy machine refuses is another test's.
    made = [parts.lookup_server(f"lookup-{number}", NEARKIN_LOOKUP_AT_ONCE="64") for number in range(2)]
    servers = [server for server, _ in made]
    parts.start(parts.broker, parts.index)
    parts.start(parts.live, *servers)
    parts.streams.publish([upsert(f"mug-{number}", f"red mug {number}") for number in range(20)])
    parts.streams.until_drained("live")

    async def run() -> tuple[Counter[str], list[int]]:
        async with LookupClient("ipv4:" + ",".join(address for _, address in made)) as client:
            return await load(client, servers)

    outcomes, statuses = asyncio.run(run())
    assert outcomes.keys() == {"answered"}, outcomes
    assert outcomes["answered"] > RATE * SECONDS / 2
    assert statuses == [0, 0]
