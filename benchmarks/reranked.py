"""From what somebody did to a look-up that knows it, and ranked look-ups while items and feedback stream in.

    python -m benchmarks.reranked [--items 50000] [--seconds 90] [--lookups 50] [--exposures 2000] [--json FILE]

Starts the embedded stack, loads the items through the bulk lane, gives each its remembered pairs (2 million in all,
`benchmarks.behaviour`; Redis with its append-only file on and the caps in force), has the graph built, and then lets
everything stream in at once: new items, slates of ten whose anchors follow Zipf's law with an interaction for every
four slates (published as a busy site would, gathered for 50 ms), and look-ups in an open loop, each of which ranks 200
candidates of the index and what evidence names. Look-ups alone run before, until the new service remembers.

A few times a second somebody clicks on what was never seen beside an anchor, and the anchor is looked up by evidence
alone until the answer holds it: that is what "visible" means, timed from the moment that the click was meant to be
published to the answer. The next question follows 10 ms after an answer, so a time is late by at most that and one
answer, never early. Publisher, prover and load generator share the machine with the stack.

Exits with 1 where something that must be reached was missed.
"""

import argparse
import asyncio
import itertools
import random
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.behaviour import Behaviour, remember_all
from benchmarks.catalogue import vary_catalogue
from benchmarks.freshness import build_graph
from benchmarks.load import WARM_UP_S, Latencies, offer, similar_to
from benchmarks.programs import read_memory, read_processor, run_embedded
from benchmarks.publishing import content_of, offer_of, send_in_bulk, until_visible
from benchmarks.report import Bar, conclude, percentile_bars
from nearkin.client.lookup import LookupClient
from nearkin.client.producer import Producer
from nearkin.core.feedback import Action, Shown
from nearkin.core.retrieval import Ranking
from nearkin.embedded.stack import Stack
from nearkin.ops.settings import load_settings
from nearkin.stores import evidence

#: What is asked, in milliseconds: what must be reached, and the goal.
VISIBLE = ({"p50": 80, "p99": 400}, {"p50": 40, "p99": 120})
RANKED = ({"p50": 20, "p99": 60}, {"p50": 8, "p99": 25})

SLATE = 10

#: An interaction for so many slates: a fifth of the messages.
SLATES_AN_INTERACTION = 4

#: Slates are gathered for so long before they go out, in milliseconds; items and the clicks that are proved are not.
SLATES_LINGER_MS = 50

#: New items, and clicks that are proved, a second.
NEW_ITEMS, PROOFS = 10.0, 4.0

#: The pause between an answer and the next question of one proof, and how long it goes on, in seconds.
POLL_S, PATIENCE_S = 0.01, 30.0

#: So many candidates are asked for, which is all that is remembered of an anchor.
ALL_PAIRS = 100


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=50_000, help="items that the index holds before")
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--lookups", type=float, default=50.0, help="look-ups a second")
    parser.add_argument("--exposures", type=float, default=2_000.0, help="pair exposures a second")
    parser.add_argument("--json", type=Path, help="where the figures go")
    chosen = parser.parse_args()
    figures: dict[str, Any] = {"asked": {**vars(chosen), "json": None}}

    async def work(stack: Stack) -> None:
        await measure(stack, chosen, figures)

    run_embedded(work)
    looked_up, visible = figures["lookups"], figures["visible"]
    print(f"\nlook-ups alone, of a service that has just begun: {figures['lookups_at_first']['latency']}")
    print(f"look-ups: {looked_up['latency']}, failed {looked_up['failures']}, degraded {figures['degraded']}")
    print(f"visible: {visible['latency']}, not proved {visible['not_proved']}, {visible['questions']} questions")
    print("cores used meanwhile:", figures["cores_used"], "in all", round(sum(figures["cores_used"].values()), 2))
    bars = [
        *percentile_bars("event to visible in a look-up", visible["latency"], *VISIBLE),
        Bar(what=f"clicks not visible within {PATIENCE_S:g} s", measured=visible["not_proved"], must=0),
        *percentile_bars("ranked look-ups beside the streams", looked_up["latency"]["percentiles"], *RANKED),
        Bar(what="look-ups that failed", measured=sum(looked_up["failures"].values()), must=0),
        Bar(what="look-ups that were degraded", measured=figures["degraded"], must=0),
    ]
    return conclude(figures, bars, chosen.json)


async def measure(stack: Stack, chosen: argparse.Namespace, figures: dict[str, Any]) -> None:
    """Load, remember, stream, look up, and fill in the figures."""
    everything = vary_catalogue(chosen.items + round(NEW_ITEMS * chosen.seconds))
    random.Random(0).shuffle(everything)
    old, fresh = everything[: chosen.items], everything[chosen.items :]
    ids = [one.id for one in old]
    endpoints = stack.endpoints
    store = evidence.connect(settings := load_settings(redis_url=endpoints.redis), evidence.rules_of(settings))
    figures["pairs"] = await remember_all(store, ids, time.time_ns() // 1_000_000)
    await store.close()
    with Producer(endpoints.kafka) as producer, Producer(endpoints.kafka, linger_ms=SLATES_LINGER_MS) as site:
        async with LookupClient(endpoints.lookup) as lookups, LookupClient(endpoints.lookup) as prover:
            sending = asyncio.create_task(asyncio.to_thread(send_in_bulk, producer, old))
            await until_visible(lookups, ids)
            await sending
            await asyncio.to_thread(build_graph, endpoints.qdrant)
            print(f"{len(ids):,} items, {figures['pairs']:,} pairs; streaming for {chosen.seconds:g} s", flush=True)
            behaviour = Behaviour(ids)
            anchors = [behaviour.anchor() for _ in range(20_000)]
            degraded = 0

            async def look_up(number: int) -> None:
                nonlocal degraded
                answer = await call(number)
                degraded += bool(answer.degraded)  # type: ignore[attr-defined]  # an answer of the client

            call = similar_to(lookups, anchors)
            figures["lookups_at_first"] = (await offer(look_up, chosen.lookups, WARM_UP_S)).as_json()
            degraded = 0
            used, began = read_processor(), time.perf_counter()
            proofs = _Proofs(prover)
            loads = await asyncio.gather(
                offer(look_up, chosen.lookups, chosen.seconds, seed=1),
                offer(_items(producer, fresh), NEW_ITEMS, chosen.seconds, seed=2),
                offer(_slates(site, behaviour), chosen.exposures / SLATE, chosen.seconds, seed=3),
                offer(_clicks(producer, behaviour, proofs), PROOFS, chosen.seconds, seed=4),
            )
            took = time.perf_counter() - began
    figures["lookups"] = loads[0].as_json()
    figures["degraded"] = degraded
    figures["slates"] = loads[2].as_json()
    figures["visible"] = {
        "latency": Latencies.of(proofs.seconds).as_json(),
        "not_proved": proofs.given_up,
        "questions": proofs.questions,
    }
    figures["cores_used"] = {name: round((now - used[name]) / took, 3) for name, now in read_processor().items()}
    figures["memory_mb"] = read_memory()


def _items(producer: Producer, fresh: list[Any]) -> Any:
    items = iter(fresh)

    async def publish(_number: int) -> None:
        if (one := next(items, None)) is not None:
            producer.upsert(one.id, content_of(one), offer=offer_of(one), bulk=False)

    return publish


def _slates(producer: Producer, behaviour: Behaviour) -> Any:
    async def publish(number: int) -> None:
        anchor = behaviour.anchor()
        shown = behaviour.slate(anchor, SLATE)
        producer.impressions(anchor, f"r-{number}", "page", [Shown(one, at) for at, one in enumerate(shown, 1)])
        if number % SLATES_AN_INTERACTION == 0:
            producer.interaction(
                anchor,
                shown[number % 3],
                Action.CLICK,
                request_id=f"r-{number}",
                position=number % 3 + 1,
                surface="page",
            )

    return publish


def _clicks(producer: Producer, behaviour: Behaviour, proofs: "_Proofs") -> Any:
    numbers = itertools.count()

    async def click(_number: int) -> None:
        began = time.perf_counter()
        anchor, other = behaviour.anchor(), behaviour.anchor()
        known = behaviour.partners(anchor)
        while other == anchor or other in known:
            other = behaviour.anchor()
        producer.interaction(
            anchor, other, Action.CLICK, request_id=f"proof-{next(numbers)}", position=1, surface="page"
        )
        await proofs.prove(anchor, other, began)

    return click


class _Proofs:
    """Looks anchors up until they know what happened."""

    def __init__(self, lookups: LookupClient) -> None:
        self._lookups = lookups
        self._proved: set[tuple[str, str]] = set()
        self.seconds: list[float] = []
        self.given_up = 0
        self.questions = 0

    async def prove(self, anchor: str, other: str, began: float) -> None:
        """Ask until the answer for an anchor holds the other item."""
        if (anchor, other) in self._proved:
            return
        self._proved.add((anchor, other))
        while time.perf_counter() - began < PATIENCE_S:
            self.questions += 1
            answer = await self._lookups.similar(
                item_id=anchor, k=ALL_PAIRS, ranking=Ranking.EVIDENCE, no_exploration=True
            )
            if any(one.id == other for one in answer.neighbours):
                self.seconds.append(time.perf_counter() - began)
                return
            await asyncio.sleep(POLL_S)
        self.given_up += 1


if __name__ == "__main__":
    sys.exit(main())
