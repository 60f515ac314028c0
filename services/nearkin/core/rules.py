"""What may be shown beside an anchor whatever its score: rules take candidates out and put pinned ones first.

Rules come after the ranking and before diversity and exploration. What they keep may be reordered and thinned out by
both without breaking a rule again: none of them asks for an item to be shown because another one is, and "at most n"
holds for every part of a list that it holds for. Pins alone have a place, the first ones, and nothing later moves them.

Each rule says what it did to which item, so that an answer can be explained.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from itertools import islice

import numpy as np

from nearkin.core.candidates import Candidates, ItemFacts
from nearkin.core.evidence import Metric
from nearkin.core.filters import ItemFilter
from nearkin.core.item import Availability, category_key
from nearkin.core.sketch import similarities

_WORD = re.compile(r"\w+")

#: How many more items than are asked for are compared at once: usually so few are taken out.
_SPARE = 14

#: By so much decayed hides or reports may miss the number that a rule asks for.
_LET_OFF = 0.5


class Rule(StrEnum):
    """What moved an item, or took it out."""

    BLOCKED_ITEM = "blocked_item"
    BLOCKED_PAIR = "blocked_pair"
    AVAILABILITY = "availability"
    MARKET = "market"
    FILTER = "filter"  # a condition of the request
    HIDDEN = "hidden"  # people hid it beside this anchor
    REPORTED = "reported"  # people reported it beside this anchor
    VARIANT = "variant"  # another variant of the product is shown, or the anchor is one
    NEAR_DUPLICATE = "near_duplicate"  # what is shown is the same to a person
    CATEGORY_CAP = "category_cap"
    MAKER_CAP = "maker_cap"
    PIN = "pin"
    DIVERSITY = "diversity"  # no rule: `core.diversity` moved it


@dataclass(frozen=True, slots=True)
class Rules:
    """The standing rules of an installation.

    Attributes:
        availability: offers that may be shown where the request does not say.
        most_per_category: items of one category (a whole path) in an answer; 0 for any number.
        most_per_maker: items of one maker in an answer; 0 for any number.
        collapse_variants: whether only the best variant of a product is shown, and none of the anchor's own product.
        near_duplicate: the cosine from which on two items are one to a person; above 1 for none.
        same_title: the cosine from which on two items with the same words in their titles are one; above 1 for none.
        hidden_after: a pair that was hidden so often, decayed, or half a time less, is not shown any more, ...
        hidden_share: ... where it was hidden in this share of its exposures, or in more.
        reported_after: the same for reports.
        reported_share: the same for reports.
    """

    availability: tuple[Availability, ...] = (Availability.IN_STOCK, Availability.OUT_OF_STOCK, Availability.PREORDER)
    most_per_category: int = 0
    most_per_maker: int = 0
    collapse_variants: bool = True
    near_duplicate: float = 0.98
    same_title: float = 0.8
    hidden_after: float = 5.0
    hidden_share: float = 0.05
    reported_after: float = 3.0
    reported_share: float = 0.02


@dataclass(frozen=True, slots=True)
class Curation:
    """What somebody decided by hand.

    Attributes:
        blocked_items: never shown beside anything.
        blocked_pairs: for an item those that are never shown beside it; a pair stands under both of its items.
        pins: for an anchor what is shown first, in this order.
    """

    blocked_items: frozenset[str] = frozenset()
    blocked_pairs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    pins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def block(self, anchor_id: str, item_id: str) -> Rule | None:
        """The block that keeps an item from being shown beside an anchor; None where there is none."""
        if item_id in self.blocked_items:
            return Rule.BLOCKED_ITEM
        return Rule.BLOCKED_PAIR if item_id in self.blocked_pairs.get(anchor_id, ()) else None


@dataclass(frozen=True, slots=True)
class Moved:
    """What happened to one item.

    Attributes:
        item: its id.
        rule: what moved it.
        was: its rank before, from 1.
        now: its rank afterwards; None where it was taken out.
        because_of: the id of the item that it had to make room for; empty where it is none.
    """

    item: str
    rule: Rule
    was: int
    now: int | None = None
    because_of: str = ""


@dataclass(frozen=True, slots=True)
class Ruled:
    """What the rules left.

    Attributes:
        order: rows of the candidates, pins first, then best first.
        pins: how many at its head are pinned.
        moved: what the rules did, ranks being those in the order that they were given.
    """

    order: tuple[int, ...]
    pins: int
    moved: tuple[Moved, ...]


def apply_rules(
    order: Sequence[int],
    candidates: Candidates,
    rules: Rules,
    *,
    anchor_id: str = "",
    anchor: ItemFacts | None = None,
    market: str = "",
    conditions: ItemFilter | None = None,
    curation: Curation | None = None,
    enough: int = 0,
) -> Ruled:
    """Apply the rules to ranked candidates.

    A pin is shown only where it is a candidate, and no condition, block or report takes it out; caps and likeness do
    not concern it, nor that it is a variant of the anchor, but it counts for those that come after it.

    Args:
        order: rows of `candidates`, best first.
        candidates: what they are rows of.
        rules: of the installation.
        anchor_id: the anchor's id; empty where it is a content that is not published.
        anchor: what is known of it.
        market: where the answer is shown; empty where it is not known, and then every market does.
        conditions: of the request; those on tags and attributes hold by the search alone.
        curation: what was decided by hand.
        enough: stop after so many items beside the pins; what is left is neither kept nor taken out. 0 for all.
    """
    curation = curation or Curation()
    facts = candidates.facts
    admission = _Admission(rules, anchor_id, anchor, market, conditions or ItemFilter(), curation)
    disliked = _disliked(candidates, rules)
    moved: list[Moved] = []
    pins: list[int] = []
    if wanted := curation.pins.get(anchor_id):
        places = {facts[row].id: place for place, row in enumerate(order)}
        for place in [places[item] for item in dict.fromkeys(wanted) if item in places]:
            row = order[place]
            if admission.refusal(facts[row]) in (None, Rule.VARIANT) and row not in disliked:
                pins.append(row)
                moved.append(Moved(facts[row].id, Rule.PIN, place + 1, len(pins)))

    def admit() -> Iterator[tuple[int, int]]:
        for rank, row in enumerate(order, 1):
            if row in pins:
                continue
            rule = admission.refusal(facts[row]) or disliked.get(row)
            if rule is None:
                yield rank, row
            else:
                moved.append(Moved(facts[row].id, rule, rank))

    company = _Company(candidates, rules, pins)
    most = len(pins) + (enough or len(order))
    admitted = admit()
    while len(company.rows) < most and (some := list(islice(admitted, (enough or len(order)) + _SPARE))):
        company.meet([row for _, row in some])
        for rank, row in some:
            refused = company.refusal(row)
            if refused is not None:
                moved.append(Moved(facts[row].id, refused[0], rank, because_of=refused[1]))
                continue
            company.join(row)
            if len(company.rows) >= most:
                break
    return Ruled(tuple(company.rows), len(pins), tuple(moved))


class _Admission:
    """What an item must be by itself, whatever else is shown."""

    def __init__(
        self,
        rules: Rules,
        anchor_id: str,
        anchor: ItemFacts | None,
        market: str,
        conditions: ItemFilter,
        curation: Curation,
    ) -> None:
        self._blocked = curation.blocked_items
        self._beside = curation.blocked_pairs.get(anchor_id, frozenset())
        # A request that names availabilities knows better than the standing rule.
        self._availability = frozenset(conditions.availability or rules.availability)
        self._markets = frozenset(name for name in (market, conditions.market) if name)
        self._group = anchor.variant_group if anchor is not None and rules.collapse_variants else ""
        self._excluded = frozenset(conditions.exclude_ids)
        self._price = conditions.price
        self._any = frozenset(map(category_key, conditions.categories_any))
        self._all = frozenset(map(category_key, conditions.categories_all))
        self._prefix = category_key(conditions.category_prefix)
        self._asks = bool(self._excluded or self._any or self._all or self._prefix or self._price)

    def refusal(self, item: ItemFacts) -> Rule | None:
        """The rule that takes an item out; None where it may stay."""
        if item.id in self._blocked:
            return Rule.BLOCKED_ITEM
        if item.id in self._beside:
            return Rule.BLOCKED_PAIR
        if item.availability not in self._availability:
            return Rule.AVAILABILITY
        if item.markets and not self._markets.issubset(item.markets):
            return Rule.MARKET
        if self._asks and not self._asked_for(item):
            return Rule.FILTER
        # Last, as a pin may be one.
        return Rule.VARIANT if self._group and item.variant_group == self._group else None

    def _asked_for(self, item: ItemFacts) -> bool:
        categories, prefix, price = item.categories, self._prefix, self._price
        if item.id in self._excluded or not self._all.issubset(categories):
            return False
        if self._any and self._any.isdisjoint(categories):
            return False
        if prefix and not any(key == prefix or key.startswith(f"{prefix}/") for key in categories):
            return False
        if price is None:
            return True
        if item.price is None or item.currency != price.currency:
            return False
        return (price.low is None or item.price >= price.low) and (price.high is None or item.price <= price.high)


def _disliked(candidates: Candidates, rules: Rules) -> dict[int, Rule]:
    """The rows that people hid or reported beside this anchor too often."""
    found: dict[int, Rule] = {}
    exposures = candidates.counts[:, Metric.EXPOSURES]
    for rule, metric, after, share in (
        (Rule.HIDDEN, Metric.HIDES, rules.hidden_after, rules.hidden_share),
        (Rule.REPORTED, Metric.REPORTS, rules.reported_after, rules.reported_share),
    ):
        counts = candidates.counts[:, metric]
        # What happened a moment ago has decayed a little already: five times must be enough where five are asked for.
        beyond = (counts >= max(after - _LET_OFF, after / 2)) & (counts >= share * exposures)
        found.update(dict.fromkeys(np.flatnonzero(beyond).tolist(), rule))
    return found


class _Company:
    """The items that are kept so far, and whether one more goes with them."""

    def __init__(self, candidates: Candidates, rules: Rules, pins: Sequence[int]) -> None:
        self.rows: list[int] = []
        self._facts, self._rules = candidates.facts, rules
        self._alike: dict[int, list[int]] = {}
        self._kept: set[int] = set()
        self._groups: dict[str, str] = {}
        self._categories: Counter[str] = Counter()
        self._makers: Counter[str] = Counter()
        for row in pins:
            self.join(row)

    def meet(self, rows: Sequence[int]) -> None:
        """Find out who among these and the kept ones is like whom."""
        rules, facts = self._rules, self._facts
        together = [*self.rows, *rows]
        self._alike = {}
        if min(rules.near_duplicate, rules.same_title) > 1:
            return
        cosines = similarities([facts[row].sketch for row in together])
        np.fill_diagonal(cosines, -1.0)
        for cell in np.flatnonzero(cosines >= rules.near_duplicate).tolist():
            first, second = divmod(cell, len(together))
            self._alike.setdefault(together[first], []).append(together[second])
        titles = [_words(facts[row].title) for row in together]
        if rules.same_title > 1 or len(set(titles)) == len(titles):
            return
        titled: dict[str, list[int]] = {}
        for place, words in enumerate(titles):
            titled.setdefault(words, []).append(place)
        for words, places in titled.items():
            for place in places if words and len(places) > 1 else ():
                one = facts[together[place]]
                self._alike.setdefault(together[place], []).extend(
                    together[other]
                    for other in places
                    if other != place
                    and (
                        cosines[place, other] >= rules.same_title or not (one.sketch and facts[together[other]].sketch)
                    )
                )

    def refusal(self, row: int) -> tuple[Rule, str] | None:
        """The rule that keeps an item out, and because of whom; None where it may join."""
        item, rules = self._facts[row], self._rules
        if rules.collapse_variants and item.variant_group in self._groups:
            return Rule.VARIANT, self._groups[item.variant_group]
        for other in self._alike.get(row, ()):
            if other in self._kept:
                return Rule.NEAR_DUPLICATE, self._facts[other].id
        most = rules.most_per_category
        if most and any(self._categories[category] >= most for category in item.categories):
            return Rule.CATEGORY_CAP, ""
        most = rules.most_per_maker
        if most and item.maker and self._makers[item.maker] >= most:
            return Rule.MAKER_CAP, ""
        return None

    def join(self, row: int) -> None:
        """Keep an item."""
        item = self._facts[row]
        self.rows.append(row)
        self._kept.add(row)
        if item.variant_group:
            self._groups.setdefault(item.variant_group, item.id)
        if self._rules.most_per_category:
            self._categories.update(item.categories)
        if self._rules.most_per_maker:
            self._makers[item.maker] += 1


@lru_cache(maxsize=2**15)
def _words(title: str) -> str:
    """A title as a person compares it: its words, without case and punctuation."""
    return " ".join(_WORD.findall(title.casefold()))
