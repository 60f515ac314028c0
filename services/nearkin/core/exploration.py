"""The last draw of a look-up: a small share of answers is not the best known one, so that better ones can be found.

An answer is drawn from a mixture of three policies, each of which has a closed form for the probability that an item
stands at a position. So the *marginal propensity* of every shown item at its position is exact, and that is what an
estimate from the log divides by (the item-position model: Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay, Wen,
"Offline evaluation of ranking policies with click models", KDD 2018).

- *greedy*: the order as it is.
- *shuffled*: the places get a uniform draw without replacement from the best `pool` items.
- *new item*: the order as it is, but one of the lower places, drawn uniformly, goes to one of the new items that would
  not be shown, drawn uniformly: a floor of exposure for what nobody has seen yet. Where there is none, greedy. The
  first place is never given away, so a lone one is not either.

The draw is seeded by the request's id alone, so that an answer can be given again. Pins are never drawn away.
"""

import hashlib
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from nearkin.core.evidence import DAY_MS

#: Keeps these draws apart from whatever else is decided by a hash of the request's id.
_PURPOSE = b"nearkin exploration 1\0"

#: Eight bytes of the hash are one uniform number below this.
_RANGE = 2**64


class Policy(StrEnum):
    """Which policy of the mixture gave a slate."""

    GREEDY = "greedy"
    SHUFFLED = "shuffled"
    NEW_ITEM = "new_item"


@dataclass(frozen=True, slots=True)
class ExplorationRules:
    """How much is explored.

    Attributes:
        share: of answers that are shuffled.
        pool: a shuffled answer is drawn from so many of the best; from as many as there are places at least.
        new_item_share: of answers that give a place to a new item.
        new_item_age_ms: an item is new for so many milliseconds after it was first seen.
    """

    share: float = 0.02
    pool: int = 20
    new_item_share: float = 0.05
    new_item_age_ms: int = 7 * DAY_MS

    def __post_init__(self) -> None:
        if not (self.share >= 0 and self.new_item_share >= 0 and self.share + self.new_item_share <= 1):
            raise ValueError(
                f"share is {self.share} and new_item_share {self.new_item_share}; from 0 on, they must add up to 1 "
                "at most"
            )

    def new_since(self, at_ms: int) -> int:
        """Items first seen after this are new at a time; one whose first time is not known has 0, and never is."""
        return max(at_ms - self.new_item_age_ms, 0)


@dataclass(frozen=True, slots=True)
class Slate:
    """What is shown.

    Attributes:
        items: rows, by position.
        propensities: of each item at its position, over all request ids; above 0, to 1.
        policy: which one gave it.
        explored: for each position whether the draw filled it, not the order.
    """

    items: tuple[int, ...]
    propensities: tuple[float, ...]
    policy: Policy
    explored: tuple[bool, ...]


def draw(
    order: Sequence[int],
    new_items: Collection[int],
    k: int,
    request_id: str,
    rules: ExplorationRules,
    *,
    pins: int = 0,
    explore: bool = True,
) -> Slate:
    """Draw an answer of k items.

    Args:
        order: distinct rows that may be shown, best first.
        new_items: those of them that are new.
        k: how many places there are; the answer has fewer where the order has.
        request_id: seeds the draw.
        rules: how much is explored.
        pins: how many at the head of `order` stay where they are.
        explore: False where the caller opted out: the order as it is, with propensity 1.
    """
    greedy = tuple(order[:k])
    fixed = min(pins, len(greedy))
    if not explore or fixed == len(greedy):
        return Slate(greedy, (1.0,) * len(greedy), Policy.GREEDY, (False,) * len(greedy))
    mixture = _Mixture(order, new_items, k, rules, fixed)
    numbers = _numbers(request_id, 1 + max(2, len(mixture.pool)))  # a new item takes two, whatever the pool
    policy = mixture.policy((numbers[0] >> 11) / 2**53)  # as a double it stays below 1
    items, explored = list(greedy), [False] * len(greedy)
    if policy is Policy.SHUFFLED:
        by_number = sorted(zip(numbers[1:], mixture.pool, strict=False))
        items[fixed:] = [row for _, row in by_number[: len(greedy) - fixed]]
        explored[fixed:] = [True] * (len(greedy) - fixed)
    elif policy is Policy.NEW_ITEM:
        place = mixture.lower[numbers[1] * len(mixture.lower) // _RANGE]
        items[place] = mixture.unseen[numbers[2] * len(mixture.unseen) // _RANGE]
        explored[place] = True
    propensities = tuple([mixture.propensity(row, place) for place, row in enumerate(items)])
    return Slate(tuple(items), propensities, policy, tuple(explored))


class _Mixture:
    """The policies for one order, and the probability that they put an item at a place together."""

    def __init__(
        self, order: Sequence[int], new_items: Collection[int], k: int, rules: ExplorationRules, fixed: int
    ) -> None:
        self._greedy = order[:k]
        self._fixed = fixed
        places = len(self._greedy)
        self.pool = order[fixed : fixed + max(rules.pool, places - fixed)]
        self.lower = range(max(fixed, places // 2, 1), places)
        new = frozenset(new_items)
        self.unseen = [row for row in order[k:] if row in new]
        self._shuffled = rules.share
        self._new_item = rules.new_item_share if self.unseen and self.lower else 0.0

    def policy(self, number: float) -> Policy:
        """Which policy a uniform number below 1 stands for."""
        if number < self._shuffled:
            return Policy.SHUFFLED
        return Policy.NEW_ITEM if number < self._shuffled + self._new_item else Policy.GREEDY

    def propensity(self, row: int, place: int) -> float:
        """The probability that a row stands at a place, counted from 0."""
        if place < self._fixed:
            return float(row == self._greedy[place])
        chance = self._shuffled * (row in self.pool) / len(self.pool)
        given_away = self._new_item / len(self.lower) if place in self.lower else 0.0
        if row == self._greedy[place]:
            return chance + 1.0 - self._shuffled - given_away
        return chance + given_away * (row in self.unseen) / max(len(self.unseen), 1)


def _numbers(request_id: str, count: int) -> tuple[int, ...]:
    """Uniform numbers below 2**64, the same for one id on every machine and in every version."""
    hashed = hashlib.shake_256(_PURPOSE + request_id.encode(errors="surrogatepass"))
    return struct.unpack(f"<{count}Q", hashed.digest(8 * count))
