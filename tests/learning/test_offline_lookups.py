"""What look-ups would see, computed by brute force: candidates of each source, evidence as it is kept."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from nearkin.core.evidence import DAY_MS, EvidenceRules, Metric
from nearkin.core.features import FEATURE_NAMES
from nearkin.core.item import Content, Offer, Price, upserted
from nearkin.core.sketch import sketch
from nearkin.encoders.fake import HashingEncoder
from nearkin.learning.item_to_item import Visit
from nearkin.learning.offline_lookups import Depths, OfflineLookups

TITLES = {"1": "red mug", "2": "red mug large", "3": "garden hose", "4": "tea towel", "5": ""}
END = datetime(2011, 9, 30, tzinfo=UTC)


def items():
    return {
        item: upserted(item, Content(title=title), 1, Offer(price=Price(float(item), "GBP")), 1)
        for item, title in TITLES.items()
    }


def visits(*baskets, days_ago=0):
    return [
        Visit(f"v{days_ago}-{n}", END - timedelta(days=days_ago), tuple(basket)) for n, basket in enumerate(baskets)
    ]


def look_up(anchor, held, **options):
    (found,) = OfflineLookups(items(), held, HashingEncoder(), **options)([anchor])
    return found, {facts.id: row for row, facts in enumerate(found.candidates.facts)}


def test_an_anchor_is_no_candidate_of_itself_and_each_candidate_stands_once():
    found, rows = look_up("1", visits(["1", "3"], ["1", "2"]))
    assert set(rows) == {"2", "3", "4"}
    assert len(found.candidates) == len(rows)
    assert found.features.shape == (3, len(FEATURE_NAMES))


def test_each_source_is_remembered():
    found, rows = look_up("1", visits(["1", "2"]), depths=Depths(hits=1))
    assert {one.name.value for one in found.candidates.sources[rows["2"]]} >= {"lexical", "co_visits"}


def test_items_without_words_are_not_there():
    look_up_all = OfflineLookups(items(), visits(["1", "5"]), HashingEncoder())
    assert [one.anchor for one in look_up_all(["5", "1", "unknown"])] == ["1"]


def test_visits_decay_to_the_last_of_them():
    held = visits(["1", "3"], days_ago=90) + visits(["1", "4"], ["2"])
    found, rows = look_up("1", held, rules=EvidenceRules(half_life_ms=90 * DAY_MS))
    together = found.candidates.counts[:, Metric.CO_VISITS]
    assert together[rows["3"]] == pytest.approx(0.5)
    assert together[rows["4"]] == pytest.approx(1)
    assert together[rows["2"]] == 0
    assert found.candidates.visits[rows["3"]] == pytest.approx(0.5)


def test_partners_are_those_that_share_most_visits_as_the_service_chooses_them():
    held = visits(["1", "4"], *[["1", "3"]] * 3, *[["3"]] * 500)
    _, rows = look_up("1", held, depths=Depths(hits=1, partners=1))
    assert "3" in rows
    assert "4" not in rows


def test_an_item_is_as_old_as_its_first_visit_and_new_without_one():
    held = visits(["1", "3"], days_ago=90) + visits(["1", "3"])
    found, rows = look_up("1", held)
    first_seen = {item: found.candidates.facts[row].first_seen for item, row in rows.items()}
    now = int(END.timestamp() * 1000)
    assert first_seen == {"3": now - 90 * DAY_MS, "2": now, "4": now}


def test_facts_have_the_sketches_of_the_vectors():
    look_up_all = OfflineLookups(items(), visits(["1", "3"]), HashingEncoder())
    (found,) = look_up_all(["1"])
    ids = [facts.id for facts in found.candidates.facts]
    assert [facts.sketch for facts in found.candidates.facts] == [sketch(one) for one in look_up_all.vectors_of(ids)]


def test_only_the_strongest_pairs_are_remembered():
    titles = {str(n): f"thing {n}" for n in range(20)}
    known = {item: upserted(item, Content(title=title), 1) for item, title in titles.items()}
    held = [Visit(f"{n}-{m}", END, ("0", str(n))) for n in range(1, 20) for m in range(n)]
    (found,) = OfflineLookups(known, held, HashingEncoder(), EvidenceRules(most_pairs=8))(["0"])
    together = found.candidates.counts[:, Metric.CO_VISITS]
    assert sorted(together[together > 0]) == list(range(12, 20))


def test_without_visits_content_is_all_there_is():
    found, _ = look_up("1", [])
    assert not found.candidates.counts.any()
    assert np.isfinite(found.features).all()
