"""Settings become the rules that answers follow, and a look-up that looks at the head alone answers as by the whole."""

from dataclasses import replace
from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from made_candidates import candidates_of
from nearkin.core.candidates import AnchorContext, ItemFacts
from nearkin.core.evidence import DAY_MS
from nearkin.core.exploration import ExplorationRules
from nearkin.core.rules import Curation, Rules
from nearkin.lookup import rank_candidates as module
from nearkin.lookup.rank_candidates import Ordering, rank_candidates
from nearkin.lookup.request import SimilarTo
from nearkin.ops.settings import load_settings


def test_the_defaults_of_the_settings_are_those_of_the_rules():
    ordering = Ordering.by_settings(load_settings())
    assert ordering.rules == Rules()
    assert ordering.exploration == ExplorationRules()


def test_each_setting_reaches_its_rule():
    ordering = Ordering.by_settings(
        load_settings(
            rules_most_per_category=1,
            rules_most_per_maker=2,
            rules_collapse_variants=False,
            rules_near_duplicate=0.9,
            rules_hidden_after=6.0,
            rules_reported_after=7.0,
            diversity=0.4,
            explore_share=0.1,
            explore_pool=30,
            explore_new_item_share=0.2,
            explore_new_item_days=1.5,
        )
    )
    assert ordering.rules == Rules(
        most_per_category=1,
        most_per_maker=2,
        collapse_variants=False,
        near_duplicate=0.9,
        hidden_after=6.0,
        reported_after=7.0,
    )
    assert ordering.diversity == 0.4
    assert ordering.exploration == ExplorationRules(0.1, 30, 0.2, int(1.5 * DAY_MS))


AT_MS = 100 * DAY_MS
NOBODY = AnchorContext(None, 0.0, 0.0, AT_MS)


def by_cosine(*facts):
    """Candidates, best first by meaning."""
    return replace(candidates_of(*facts), content=np.linspace(0.9, 0.1, len(facts)))


def test_what_is_known_to_be_best_is_no_new_item_from_far_down():
    one_maker = [ItemFacts(f"good-{n}", maker="one") for n in range(100)]
    others = [ItemFacts(f"fair-{n}", maker=f"maker {n}") for n in range(90)]
    new = [ItemFacts(f"new-{n}", maker=f"new {n}", first_seen=AT_MS) for n in range(10)]
    ordering = Ordering(rules=Rules(most_per_maker=2), exploration=ExplorationRules(0.0, 20, 0.0))
    ranked = rank_candidates(SimilarTo("a", 4), NOBODY, by_cosine(*one_maker, *others, *new), ordering, Curation())
    assert [one.item_id for one in ranked.placed] == ["good-0", "good-1", "fair-0", "fair-1"]


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1), size=st.integers(90, 260), k=st.integers(1, 70), pool=st.integers(1, 60),
    makers=st.sampled_from((0, 4, 40, 1000)), alike=st.integers(0, 150), most=st.integers(0, 3), pins=st.integers(0, 3),
    diversity=st.sampled_from((0.0, 0.3)), share=st.sampled_from((0.0, 1.0)),
)  # fmt: skip
def test_the_head_of_the_order_gives_the_answer_that_the_whole_gives(
    seed, size, k, pool, makers, alike, most, pins, diversity, share
):
    random = np.random.default_rng(seed)
    facts = [
        ItemFacts(
            f"item-{n}",
            maker="the maker of the best" if n < alike else f"maker {random.integers(makers)}" if makers else "",
            variant_group=f"group {random.integers(40)}" if random.random() < 0.3 else "",
            first_seen=AT_MS if random.random() < 0.1 else 0,
        )
        for n in range(size)
    ]
    pinned = tuple(f"item-{n}" for n in random.integers(size, size=pins).tolist())
    lookup = SimilarTo("a", k, request_id=str(seed), pinned=tuple(dict.fromkeys(pinned)))
    ordering = Ordering(
        rules=Rules(most_per_maker=most), diversity=diversity, exploration=ExplorationRules(share, pool, 0.0)
    )
    answers = []
    for headroom in (module.HEADROOM, 1_000):
        with mock.patch.object(module, "HEADROOM", headroom):
            answers.append(rank_candidates(lookup, NOBODY, by_cosine(*facts), ordering, Curation()))
    head, whole = answers
    assert head.placed == whole.placed


def test_ranks_before_a_move_are_those_among_all_candidates():
    facts = [ItemFacts(f"item-{n}", first_seen=AT_MS if n == 150 else 0) for n in range(200)]
    lookup = SimilarTo("a", 4, pinned=("item-150", "item-120"))
    ranked = rank_candidates(lookup, NOBODY, by_cosine(*facts), Ordering(), Curation())
    assert [(one.item, one.was, one.now) for one in ranked.moved if one.now] == [
        ("item-150", 151, 1),
        ("item-120", 121, 2),
    ]
