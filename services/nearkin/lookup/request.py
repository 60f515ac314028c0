"""What one look-up asks."""

from dataclasses import dataclass, field

from nearkin.core.filters import ItemFilter
from nearkin.core.item import Content
from nearkin.core.probe import PROBE_MARKET
from nearkin.core.retrieval import Ranking, Retrieval

#: How many neighbours a look-up gets that does not say.
DEFAULT_K = 10


@dataclass(frozen=True, slots=True)
class SimilarTo:
    """One look-up.

    Attributes:
        anchor: the id of an item in the index, or the content of an item that need not be. A hidden item may be an
            anchor (whoever holds its page may see what is like it), a deleted one may not.
        k: how many neighbours at most, from 1.
        filter: conditions on the neighbours, whoever names them; the anchor need not meet them.
        retrieval: which searches the neighbours come from. One search alone gives its own order, and is not ranked.
        ranking: what decides their order.
        request_id: names the look-up, and seeds its draw.
        surface: where the answer will be shown; empty where it is not known.
        explore: whether the last draw may show what is not known to be best.
        pinned: items that stand first, in this order, where the filter and the rules admit them.
        popular_if_unknown: whether an anchor that is not in the index gets what is popular; of a ranked look-up.
    """

    anchor: str | Content
    k: int = DEFAULT_K
    filter: ItemFilter = field(default_factory=ItemFilter)
    retrieval: Retrieval = Retrieval.FUSED
    ranking: Ranking = Ranking.COMBINED
    request_id: str = ""
    surface: str = ""
    explore: bool = True
    pinned: tuple[str, ...] = ()
    popular_if_unknown: bool = False

    @property
    def is_ranked(self) -> bool:
        """Whether the answer is ranked, rather than one search's own order."""
        return self.retrieval is Retrieval.FUSED

    @property
    def wants_evidence(self) -> bool:
        """Whether what people did matters to the answer."""
        return self.is_ranked and self.ranking is not Ranking.CONTENT

    @property
    def is_of_probes(self) -> bool:
        """Whether probes are looked for, and nothing else: the monitor's look-up, which nobody must learn from."""
        return self.filter.market == PROBE_MARKET
