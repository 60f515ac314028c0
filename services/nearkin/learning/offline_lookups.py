"""What look-ups would see of an evaluation's anchors: candidates and their features, by brute force, without engines.

The visits before the cut become evidence, decayed to the last of them, and an item is as old as its first visit, or new
where it has none; candidates come from the searches by meaning and by words and from the remembered partners, as a
look-up gathers them; the features are those of `core/features.py`. Two things are simpler: searches are exact, and the
partners of a large visit are all counted, where the worker draws some of them (with the same expectation).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse  # type: ignore[import-untyped]

from nearkin.contracts.stored import to_facts
from nearkin.core.candidates import (
    AnchorContext,
    Candidates,
    CandidateSource,
    ItemFacts,
    SourcesOf,
    partners_by_visits,
)
from nearkin.core.errors import NothingToEncode
from nearkin.core.evidence import AnchorEvidence, EvidenceRules, Metric
from nearkin.core.features import compute_features
from nearkin.core.item import ItemState
from nearkin.core.ports import ContentEncoder, IndexedItem
from nearkin.core.sketch import sketch
from nearkin.core.vectors import Vectors
from nearkin.learning.item_to_item import Visit

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Depths:
    """How many candidates each source names.

    Attributes:
        hits: each search.
        partners: what is remembered.
    """

    hits: int = 100
    partners: int = 100


@dataclass(frozen=True, slots=True)
class OfflineLookup:
    """One anchor as a look-up sees it.

    Attributes:
        anchor: its id.
        candidates: n of them.
        features: (n, features).
    """

    anchor: str
    candidates: Candidates
    features: Array


class OfflineLookups:
    """Answers what look-ups would see.

    Args:
        items: what is published; those without words are not found.
        visits: what can be learnt from.
        encoder: of the contents.
        rules: of the evidence.
        depths: how many candidates each source names.

    Attributes:
        now_ms: the moment of the look-ups: the time of the last visit.
    """

    def __init__(
        self,
        items: Mapping[str, ItemState],
        visits: Sequence[Visit],
        encoder: ContentEncoder,
        rules: EvidenceRules | None = None,
        depths: Depths | None = None,
    ) -> None:
        self._rules, self._depths = rules or EvidenceRules(), depths or Depths()
        contents = {item: state.content for item, state in items.items() if state.content is not None}
        outcomes = zip(contents, encoder.encode(list(contents.values())), strict=True)
        encoded = {item: found for item, found in outcomes if not isinstance(found, NothingToEncode)}
        self._ids = list(encoded)
        self._places = {item: place for place, item in enumerate(self._ids)}
        vectors = list(encoded.values())
        self._dense = np.stack([one.content for one in vectors]) if vectors else np.empty((0, 0), np.float32)
        self._lexical, self._idf = _term_matrix(vectors)

        at = np.array([visit.at.timestamp() * 1000 for visit in visits])
        self.now_ms = int(at.max()) if len(at) else 0
        self._weights = np.exp2((at - self.now_ms) / self._rules.half_life_ms)
        self._baskets = _basket_matrix(visits, self._places)
        self._baskets_of = self._baskets.tocsc()
        self._marginals = np.asarray(self._baskets.T @ self._weights).ravel()
        first_seen = np.full(len(self._ids), self.now_ms)
        rows, columns = self._baskets.nonzero()
        np.minimum.at(first_seen, columns, at[rows].astype(np.int64))
        self._facts = [
            to_facts(IndexedItem(items[item], first_seen=seen, sketch=sketch(one.content))) or ItemFacts(item)
            for item, seen, one in zip(self._ids, first_seen.tolist(), vectors, strict=True)
        ]

    def __call__(self, anchors: Sequence[str]) -> Iterator[OfflineLookup]:
        """What a look-up would see of each anchor that can be looked up."""
        for anchor in anchors:
            if anchor in self._places:
                yield self._look_up(self._places[anchor])

    def vectors_of(self, item_ids: Sequence[str]) -> NDArray[np.float32]:
        """(n, dimensions) the dense vectors of items that have words."""
        vectors: NDArray[np.float32] = self._dense[[self._places[item] for item in item_ids]]
        return vectors

    def _look_up(self, own: int) -> OfflineLookup:
        content = (self._dense @ self._dense[own]).astype(float)
        lexical = np.asarray(self._lexical @ (self._lexical[[own]].toarray().ravel() * self._idf)).ravel()
        evidence = self._remembered(own)
        together = np.zeros(len(self._ids))
        together[[self._places[item] for item in evidence.candidates]] = evidence.counts[:, Metric.CO_VISITS]
        content_hits = _best(content, own, self._depths.hits)
        lexical_hits = _best(lexical, own, self._depths.hits)
        lexical_hits = lexical_hits[lexical[lexical_hits] > 0]
        partners = np.array(
            [self._places[item] for item in partners_by_visits(evidence, self._depths.partners)], dtype=np.int64
        )
        named = {
            name: {self._ids[place]: float(scores[place]) for place in places.tolist()}
            for name, scores, places in (
                (CandidateSource.CONTENT, content, content_hits),
                (CandidateSource.LEXICAL, lexical, lexical_hits),
                (CandidateSource.CO_VISITS, together, partners),
            )
        }
        ids = list(dict.fromkeys([item_id for listed in named.values() for item_id in listed]))
        rows = np.array([self._places[item_id] for item_id in ids], dtype=np.int64)
        # A look-up knows the cosines of what the search by meaning returned and, asking for them, of the partners.
        unknown = np.setdiff1d(lexical_hits, np.union1d(content_hits, partners))
        counts = np.zeros((len(rows), len(Metric)))
        counts[:, Metric.CO_VISITS] = together[rows]
        candidates = Candidates(
            facts=tuple(self._facts[place] for place in rows),
            sources=SourcesOf(ids, named),
            content=np.where(np.isin(rows, unknown), np.nan, content[rows]),
            lexical=np.where(np.isin(rows, lexical_hits), lexical[rows], 0.0),
            counts=counts,
            visits=self._marginals[rows],
        )
        context = AnchorContext(self._facts[own], evidence.visits, float(self._weights.sum()), self.now_ms)
        return OfflineLookup(self._ids[own], candidates, compute_features(context, candidates))

    def _remembered(self, own: int) -> AnchorEvidence:
        """What is remembered of an anchor: the strongest pairs, as many as are kept."""
        visits = self._baskets_of.indices[self._baskets_of.indptr[own] : self._baskets_of.indptr[own + 1]]
        together = np.asarray(self._weights[visits] @ self._baskets[visits]).ravel()
        together[own] = 0.0
        kept = _best(together, own, self._rules.most_pairs)
        kept = kept[together[kept] > 0]
        counts = np.zeros((len(kept), len(Metric)))
        counts[:, Metric.CO_VISITS] = together[kept]
        return AnchorEvidence(float(self._marginals[own]), tuple(self._ids[place] for place in kept), counts)


def _best(scores: Array, own: int, most: int) -> NDArray[np.int64]:
    order = np.argsort(-scores, kind="stable")[: most + 1]
    best: NDArray[np.int64] = order[order != own][:most]
    return best


def _term_matrix(vectors: Sequence[Vectors]) -> tuple[sparse.csr_matrix, Array]:
    """(items, terms) weights, and each term's inverse document frequency as the index computes it."""
    terms = [one.lexical for one in vectors]
    found: list[NDArray[np.uint32]] = [one.indices for one in terms]
    names, columns = np.unique(np.concatenate([*found, np.empty(0, np.uint32)]), return_inverse=True)
    weights = np.concatenate([np.empty(0), *(one.values for one in terms)])
    starts = np.cumsum([0, *(len(one.indices) for one in terms)])
    holding = np.bincount(columns, minlength=len(names))
    idf = np.log((len(terms) - holding + 0.5) / (holding + 0.5) + 1)
    return sparse.csr_matrix((weights, columns, starts), shape=(len(terms), len(names))), idf


def _basket_matrix(visits: Sequence[Visit], places: Mapping[str, int]) -> sparse.csr_matrix:
    """(visits, items) 1 where a visit held an item."""
    held = [(row, places[item]) for row, visit in enumerate(visits) for item in visit.items if item in places]
    rows, columns = np.array(held, dtype=np.int64).reshape(-1, 2).T
    return sparse.csr_matrix((np.ones(len(held)), (rows, columns)), shape=(len(visits), len(places)))
