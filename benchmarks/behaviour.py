"""What people do with a catalogue, made: who is looked at follows Zipf's law, and each anchor has partners of its own.

An anchor's partners are a fixed part of the catalogue, near ones chosen oftener than far ones, so that pairs repeat as
they do in a shop; how many distinct pairs there are follows from the number of anchors and of partners.
"""

import random
from collections.abc import Sequence
from itertools import accumulate

from nearkin.core.evidence import AnchorDelta, Effect, EvidenceRules, Metric, ShardBatch, Source
from nearkin.core.ports import EvidenceStore

#: Zipf's exponent: the most looked-at of 50,000 items gets some 4 % of all looks.
EXPONENT = 0.9

#: An anchor's partners, of which a slate shows some.
PARTNERS = 40


class Behaviour:
    """Draws what people do.

    Args:
        ids: the catalogue.
        seed: of all draws.
        partners: of each anchor.
    """

    def __init__(self, ids: Sequence[str], seed: int = 0, partners: int = PARTNERS) -> None:
        self._ids, self._partners = ids, partners
        self._draw = random.Random(seed)
        self._weights = list(accumulate((rank + 1) ** -EXPONENT for rank in range(len(ids))))

    def anchor(self) -> str:
        """An item that somebody looks at."""
        return self._draw.choices(self._ids, cum_weights=self._weights)[0]

    def partners(self, anchor: str) -> list[str]:
        """All that anybody chooses beside an anchor."""
        return partners_of(anchor, self._ids, self._partners)

    def slate(self, anchor: str, size: int) -> list[str]:
        """What is shown beside an anchor."""
        return self._draw.sample(self.partners(anchor), size)

    def chosen(self, anchor: str) -> str:
        """What somebody chooses beside an anchor."""
        partners = self.partners(anchor)
        return partners[min(int(self._draw.expovariate(4 / len(partners))), len(partners) - 1)]


def partners_of(anchor: str, ids: Sequence[str], count: int) -> list[str]:
    """The partners of an anchor: the same whoever asks."""
    own = random.Random(anchor)
    return [one for one in own.sample(ids, count + 1) if one != anchor][:count]


async def remember_all(store: EvidenceStore, ids: Sequence[str], at_ms: int, partners: int = PARTNERS) -> int:
    """Give every item of the catalogue its partners, without a broker; how many pairs are remembered then.

    Half of the pairs hold exposures, expectations and clicks, half co-visits.
    """
    rules = EvidenceRules()
    landmark = at_ms // rules.half_life_ms
    draw = random.Random(0)
    by_shard: dict[int, list[AnchorDelta]] = {}
    for anchor in ids:
        pairs = {}
        for candidate in partners_of(anchor, ids, partners):
            counts = [0.0] * len(Metric)
            if draw.random() < 0.5:
                counts[Metric.EXPOSURES] = draw.uniform(1, 50)
                counts[Metric.EXPECTED] = counts[Metric.EXPOSURES] * draw.uniform(0.01, 0.2)
                counts[Metric.CLICKS] = draw.uniform(0.5, 3)
            else:
                counts[Metric.CO_VISITS] = draw.uniform(1, 10)
            pairs[candidate] = counts
        by_shard.setdefault(store.shard_of(anchor), []).append(AnchorDelta(anchor, draw.uniform(20, 200), pairs))
    source = Source("benchmark-before", 0)
    for shard, deltas in by_shard.items():
        for start in range(0, len(deltas), 20):
            some = deltas[start : start + 20]
            batch = ShardBatch(source, shard, start, start + len(some), landmark, some, 100.0, at_ms)
            (outcome,) = await store.apply([batch])
            assert outcome.effect is Effect.APPLIED
    return len(ids) * partners
