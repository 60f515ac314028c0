"""From candidates to an answer, without asking anybody: features, scores, rules, diversity, and the last draw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from nearkin.core.answer import Placed
from nearkin.core.candidates import AnchorContext, Candidates, CandidateSource, ItemFacts, Source
from nearkin.core.diversity import POOL, diversify
from nearkin.core.evidence import DAY_MS
from nearkin.core.exploration import ExplorationRules, Policy, draw
from nearkin.core.features import compute_features
from nearkin.core.ranking import DEFAULT_WEIGHTS, RankingWeights, best_first, score
from nearkin.core.retrieval import Ranking
from nearkin.core.rules import Curation, Moved, Ruled, Rules, apply_rules
from nearkin.lookup.request import SimilarTo
from nearkin.ops.settings import Settings

#: Rules look at so many times the rows that can be shown; at all of them only where they take most of these out.
HEADROOM = 1.5


@dataclass(frozen=True, slots=True)
class Ordering:
    """How candidates become an answer, by the installation's settings.

    Attributes:
        weights: of the features.
        rules: what may be shown.
        diversity: strength of diversity, from 0 to 1.
        exploration: how much is explored.
        by_ranking: the weights of each kind of ranking.
    """

    weights: RankingWeights = DEFAULT_WEIGHTS
    rules: Rules = field(default_factory=Rules)
    diversity: float = 0.0
    exploration: ExplorationRules = field(default_factory=ExplorationRules)
    by_ranking: Mapping[Ranking, RankingWeights] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_ranking", {one: self.weights.only(one) for one in Ranking})

    @classmethod
    def by_settings(cls, settings: Settings, weights: RankingWeights = DEFAULT_WEIGHTS) -> "Ordering":
        """What the settings say."""
        rules = Rules(
            most_per_category=settings.rules_most_per_category,
            most_per_maker=settings.rules_most_per_maker,
            collapse_variants=settings.rules_collapse_variants,
            near_duplicate=settings.rules_near_duplicate,
            hidden_after=settings.rules_hidden_after,
            reported_after=settings.rules_reported_after,
        )
        exploration = ExplorationRules(
            share=settings.explore_share,
            pool=settings.explore_pool,
            new_item_share=settings.explore_new_item_share,
            new_item_age_ms=int(settings.explore_new_item_days * DAY_MS),
        )
        return cls(weights, rules, settings.diversity, exploration)


@dataclass(frozen=True, slots=True)
class Ranked:
    """The answer to one look-up.

    Attributes:
        placed: what is shown, by position.
        facts: of each item that is shown.
        weights: that gave the scores.
        moved: what rules and diversity did.
        policy: which policy of the last draw gave the answer.
    """

    placed: tuple[Placed, ...]
    facts: tuple[ItemFacts, ...]
    weights: RankingWeights
    moved: tuple[Moved, ...]
    policy: Policy


def rank_candidates(
    lookup: SimilarTo, anchor: AnchorContext, candidates: Candidates, ordering: Ordering, curation: Curation
) -> Ranked:
    """Order the candidates of one look-up and draw its answer.

    Args:
        lookup: what is asked; its ranking says which weights count, and whether there is anything to draw.
        anchor: what is known of the anchor.
        candidates: what the sources named, pinned items among them.
        ordering: the installation's settings.
        curation: what was decided by hand.
    """
    weights = ordering.by_ranking[lookup.ranking]
    features = compute_features(anchor, candidates)
    scores = score(features, weights)
    order = best_first(scores, candidates)
    anchor_id = lookup.anchor if isinstance(lookup.anchor, str) else ""
    if lookup.pinned:
        pins = {**curation.pins, anchor_id: lookup.pinned}
        curation = Curation(curation.blocked_items, curation.blocked_pairs, pins)
    # The other rankings are there to be compared: they show their own best.
    combined = lookup.ranking is Ranking.COMBINED
    may_explore = combined and lookup.explore
    since = ordering.exploration.new_since(anchor.at_ms)
    new = {row for row in order if candidates.facts[row].first_seen > since} if may_explore else set()

    def rule(rows: Sequence[int]) -> Ruled:
        return apply_rules(
            rows,
            candidates,
            ordering.rules,
            anchor_id=anchor_id,
            anchor=anchor.facts,
            market=lookup.filter.market,
            conditions=lookup.filter,
            curation=curation,
        )

    # The head of the order suffices, with what is new or pinned among the others, as long as rules leave of the head
    # alone what can be shown: what is far down stands behind rows that were never looked at.
    needed = max(lookup.k, POOL, ordering.exploration.pool)
    enough = int(HEADROOM * needed)
    pinned = curation.pins.get(anchor_id, ())
    far = [
        rank for rank, row in enumerate(order) if rank >= enough and (row in new or candidates.facts[row].id in pinned)
    ]
    ruled = rule([*order[:enough], *(order[rank] for rank in far)])
    moved = tuple(replace(one, was=far[one.was - enough - 1] + 1) if one.was > enough else one for one in ruled.moved)
    if len(order) > enough and len(set(order[:enough]).intersection(ruled.order[ruled.pins :])) < needed:
        ruled = rule(order)
        moved = ruled.moved
    kept: Sequence[int] = ruled.order
    if combined and ordering.diversity > 0:
        diversified = diversify(kept, scores, candidates, ordering.diversity, lookup.k, ruled.pins)
        kept = diversified.order
        moved += diversified.moved
    slate = draw(
        kept,
        new,
        lookup.k,
        lookup.request_id,
        ordering.exploration,
        pins=ruled.pins,
        explore=may_explore,
    )
    rows = list(slate.items)
    placed = tuple(
        Placed(
            candidates.facts[row].id,
            position,
            level,
            propensity,
            explored,
            (*candidates.sources[row], Source(CandidateSource.EXPLORED, propensity, position))
            if explored
            else candidates.sources[row],
            tuple(values),
        )
        for position, (row, level, propensity, explored, values) in enumerate(
            zip(
                rows,
                scores[rows].tolist(),
                slate.propensities,
                slate.explored,
                features[rows].tolist(),
                strict=True,
            ),
            1,
        )
    )
    return Ranked(placed, tuple(candidates.facts[row] for row in rows), weights, tuple(moved), slate.policy)
