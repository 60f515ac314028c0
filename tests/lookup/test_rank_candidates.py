"""Settings become the rules that answers follow."""

from nearkin.core.evidence import DAY_MS
from nearkin.core.exploration import ExplorationRules
from nearkin.core.rules import Rules
from nearkin.lookup.rank_candidates import Ordering
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
