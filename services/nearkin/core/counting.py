"""What one event adds to the evidence, and to which shards.

| event | counts |
|---|---|
| a visible place of a slate | an exposure of the pair, and the prior of its position as expected |
| an action with `request_id` and `position` | its metric of the pair |
| an action without them | as unexposed: nothing was expected of it, so it must not count against what was |
| a visit | the marginal of each of its items, and the co-visits of each pair, both ways |

An action counts once, whatever its `value`: counts are compared with expected counts, and one event must not outweigh
a thousand. There is no join: an action that comes before its slate, or without it, counts the same.

*Reserved anchors* hold what is counted of the stream as a whole, under the same guards, in the same form. Their ids
begin with a control character, which no item's id may hold, and end in the number of the shard that holds them: an
event adds only to those of its own shard, and a reader adds up those of all shards. Caps apply to them as to any.

| anchor | candidate | counts |
|---|---|---|
| `surfaces` | a surface | exposures and clicks there, with their positions known or not |
| `positions` of a surface | a position | exposures and clicks |
| | `POSITION/w`, `POSITION/v` | the same of the randomised share, weighted by 1 / propensity, and by its square; the |
| | | exposures without weights under `EXPECTED` of the first |
| `sample` of a surface | `PAIR@POSITION`, of a sixteenth of the pairs | exposures, and clicks under `EXPECTED` |
| `popular` | an item | visits under `CO_VISITS`, and the good that was done with it beside any anchor |

The last two of a surface are kept for those that the priors name, which are bounded (`MOST_SURFACES`); whatever a
producer writes into `surface` cannot fill the store. In the sample clicks stand where they do not count as strength,
so that which of them the cap keeps does not depend on clicks, which would bias what is learned.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from zlib import crc32

from nearkin.core.evidence import RESERVED, Metric, Tally, partners_of_each, visit_pairs
from nearkin.core.feedback import Action, Impressions, Interaction, Visit
from nearkin.core.position_bias import AT, SQUARES, WEIGHTS
from nearkin.core.position_priors import DEFAULT_CURVE, POSITIONS, PositionPriors, prior_at

#: One pair in so many is in the sample of its surface; which ones follows from their ids.
SAMPLED_ONE_IN = 16

#: The least propensity that is believed: less counts as this. Truncated importance sampling (Ionides 2008): one event
#: weighs no more than a thousand, and what a policy draws that seldom moves a position's mean by next to nothing.
LEAST_PROPENSITY = 1e-3

METRIC_OF: Final = {
    Action.CLICK: Metric.CLICKS,
    Action.LONG_VIEW: Metric.LONG_VIEWS,
    Action.LIKE: Metric.LIKES,
    Action.SAVE: Metric.SAVES,
    Action.PURCHASE: Metric.PURCHASES,
    Action.SKIP: Metric.SKIPS,
    Action.DISLIKE: Metric.DISLIKES,
    Action.HIDE: Metric.HIDES,
    Action.REPORT: Metric.REPORTS,
}
#: What makes an item popular.
_GOOD = frozenset({Action.CLICK, Action.LONG_VIEW, Action.LIKE, Action.SAVE, Action.PURCHASE})

_PLACES = tuple(str(position) for position in range(POSITIONS + 1))
_WEIGHTS = tuple(f"{position}{WEIGHTS}" for position in range(POSITIONS + 1))
_SQUARES = tuple(f"{position}{SQUARES}" for position in range(POSITIONS + 1))

_EXPOSURES, _EXPECTED, _CLICKS = int(Metric.EXPOSURES), int(Metric.EXPECTED), int(Metric.CLICKS)
_METRICS = len(Metric)


@dataclass(frozen=True, slots=True)
class Counting:
    """By what events are counted.

    Attributes:
        shard_of: the shard of an item.
        priors: in force.
        most_partners: with how many others of its visit an item is paired at most, from 1.
        curves: the priors of the surfaces that are known, by position from 1.
    """

    shard_of: Callable[[str], int]
    priors: PositionPriors = field(default_factory=PositionPriors)
    most_partners: int = 400
    curves: dict[str, tuple[float, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        curves = {name: surface.curve for name, surface in self.priors.surfaces.items()}
        object.__setattr__(self, "curves", curves)


def count(event: Impressions | Interaction | Visit, tallies: Sequence[Tally | None], by: Counting) -> None:
    """Add what an event counts to the tallies of the shards that it concerns.

    Args:
        event: one that was admitted, and keeps its contract.
        tallies: for each shard the sums of the batch; None where the event counted before, or does not concern the
            reader.
        by: how to count.
    """
    match event:
        case Impressions():
            _count_slate(event, tallies, by)
        case Interaction():
            _count_action(event, tallies, by)
        case Visit():
            _count_visit(event, tallies, by)


def most_pairs_of(event: Impressions | Interaction | Visit, by: Counting) -> Mapping[int, int]:
    """Of each shard that an event concerns, how many pairs it adds to at most, those of reserved anchors included."""
    match event:
        case Impressions():
            # Of each place its pair, its position plain, weighted and squared, and its part in the sample.
            of_a_place = 5 if event.surface in by.curves else 1
            return {by.shard_of(event.anchor): of_a_place * len(event.positions) + 1}
        case Interaction():
            return {by.shard_of(event.anchor): 7}
        case Visit():
            of_an_item = partners_of_each(len(event.items), by.most_partners) + 1
            return {shard: of_an_item * items for shard, items in Counter(map(by.shard_of, event.items)).items()}


def surfaces_anchor(shard: int) -> str:
    """The reserved anchor of a shard whose candidates are surfaces."""
    return f"{RESERVED}surfaces:{shard}"


def positions_anchor(surface: str, shard: int) -> str:
    """The reserved anchor of a shard whose candidates are the positions of a surface."""
    return f"{RESERVED}positions:{surface}:{shard}"


def sample_anchor(surface: str, shard: int) -> str:
    """The reserved anchor of a shard whose candidates are sampled pairs at the positions of a surface."""
    return f"{RESERVED}sample:{surface}:{shard}"


def popular_anchor(shard: int) -> str:
    """The reserved anchor of a shard whose candidates are the items that are visited most."""
    return f"{RESERVED}popular:{shard}"


def _count_slate(event: Impressions, tallies: Sequence[Tally | None], by: Counting) -> None:
    shard = by.shard_of(event.anchor)
    tally = tallies[shard]
    if tally is None:
        return
    weight = tally.weigh(event.occurred_at)
    of_anchor, surface = tally.pairs(event.anchor), event.surface
    known, curve = surface in by.curves, by.curves.get(surface, DEFAULT_CURVE)
    seed = crc32(event.anchor.encode()) if known else 0
    places = tally.pairs(positions_anchor(surface, shard)) if known else {}
    shown = 0
    for place in event.positions:
        if not place.visible:
            continue
        shown += 1
        item, position = place.item_id, place.position
        row = of_anchor.get(item)
        if row is None:
            row = of_anchor[item] = [0.0] * _METRICS
        row[_EXPOSURES] += weight
        row[_EXPECTED] += weight * prior_at(curve, position)
        if not known or position > POSITIONS:
            continue
        name = _PLACES[position]
        (places.get(name) or _row(places, name))[_EXPOSURES] += weight
        if place.propensity is not None and place.propensity < 1:
            inverse = 1 / max(place.propensity, LEAST_PROPENSITY)
            name = _WEIGHTS[position]
            row = places.get(name) or _row(places, name)
            row[_EXPOSURES] += weight * inverse
            row[_EXPECTED] += weight
            name = _SQUARES[position]
            (places.get(name) or _row(places, name))[_EXPOSURES] += weight * inverse * inverse
        pair = crc32(item.encode(), seed)
        if pair % SAMPLED_ONE_IN == 0:
            _row(tally.pairs(sample_anchor(surface, shard)), f"{pair:08x}{AT}{position}")[_EXPOSURES] += weight
    if shown:
        _row(tally.pairs(surfaces_anchor(shard)), surface)[_EXPOSURES] += weight * shown


def _count_action(event: Interaction, tallies: Sequence[Tally | None], by: Counting) -> None:
    shard = by.shard_of(event.anchor)
    tally = tallies[shard]
    if tally is None:
        return
    weight, metric = tally.weigh(event.occurred_at), METRIC_OF[event.action]
    if event.action in _GOOD:
        _row(tally.pairs(popular_anchor(shard)), event.item_id)[metric] += weight
    row = _row(tally.pairs(event.anchor), event.item_id)
    if event.request_id is None or event.position is None:
        row[Metric.UNEXPOSED] += weight
        return
    row[metric] += weight
    surface, position = event.surface, event.position
    if surface is None or event.action is not Action.CLICK:
        return
    _row(tally.pairs(surfaces_anchor(shard)), surface)[_CLICKS] += weight
    if surface not in by.curves or position > POSITIONS:
        return
    places = tally.pairs(positions_anchor(surface, shard))
    _row(places, _PLACES[position])[_CLICKS] += weight
    if event.propensity is not None and event.propensity < 1:
        inverse = 1 / max(event.propensity, LEAST_PROPENSITY)
        _row(places, _WEIGHTS[position])[_CLICKS] += weight * inverse
        _row(places, _SQUARES[position])[_CLICKS] += weight * inverse * inverse
    pair = crc32(event.item_id.encode(), crc32(event.anchor.encode()))
    if pair % SAMPLED_ONE_IN == 0:
        _row(tally.pairs(sample_anchor(surface, shard)), f"{pair:08x}{AT}{position}")[_EXPECTED] += weight


def _count_visit(event: Visit, tallies: Sequence[Tally | None], by: Counting) -> None:
    shards = [by.shard_of(item) for item in event.items]
    # Each tally is on a landmark of its own, so an event has a weight in each.
    weights: dict[int, float] = {}
    for shard in shards:
        tally = tallies[shard]
        if tally is not None and shard not in weights:
            weights[shard] = tally.weigh(event.occurred_at)
    home = by.shard_of(min(event.items))  # one shard counts it among all visits
    if (tally := tallies[home]) is not None:
        tally.visits += weights[home]
    of_items: dict[str, tuple[dict[str, list[float]], float]] = {}
    for item, shard in zip(event.items, shards, strict=True):
        tally = tallies[shard]
        if tally is None:
            continue
        weight = weights[shard]
        tally.visited(item, weight)
        _row(tally.pairs(popular_anchor(shard)), item)[Metric.CO_VISITS] += weight
        of_items[item] = tally.pairs(item), weight
    for anchor, partner, share in visit_pairs(event.visit_id, event.items, by.most_partners):
        if anchor in of_items:
            pairs, weight = of_items[anchor]
            _row(pairs, partner)[Metric.CO_VISITS] += weight * share


def _row(pairs: dict[str, list[float]], candidate: str) -> list[float]:
    """The counts of a candidate, to be added to."""
    row = pairs.get(candidate)
    if row is None:
        row = pairs[candidate] = [0.0] * _METRICS
    return row
