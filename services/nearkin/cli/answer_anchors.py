"""Asks the look-up service for the neighbours of an evaluation's anchors, as a ranking orders them."""

from collections.abc import Callable, Sequence

from nearkin.client.lookup import LookupClient
from nearkin.core.errors import NearkinError, Unavailable, UnknownItem
from nearkin.core.retrieval import Ranking

#: How many anchors go into one call, and how long it may take, in seconds.
ANCHORS_A_CALL, CALL_S = 25, 60.0

#: What an answer that is to be judged must not do without.
_NEEDED = frozenset({"index", "evidence"})


async def answer_anchors(
    lookups: LookupClient, anchors: Sequence[str], ranking: Ranking, k: int, answered: Callable[[int], None]
) -> dict[str, list[str]]:
    """The neighbours of each anchor, best first, without exploration; none where the index has no such anchor.

    Args:
        lookups: the service.
        anchors: ids of items.
        ranking: what decides the order.
        k: how many neighbours at most.
        answered: told after each call how many anchors it answered.

    Raises:
        Unavailable: an answer had to do without the index or the evidence, and so says nothing of the ranking.
    """
    found: dict[str, list[str]] = {}
    for start in range(0, len(anchors), ANCHORS_A_CALL):
        asked = anchors[start : start + ANCHORS_A_CALL]
        answers = await lookups.similar_many(asked, k=k, ranking=ranking, no_exploration=True, timeout_s=CALL_S)
        for anchor, answer in zip(asked, answers, strict=True):
            if isinstance(answer, UnknownItem):
                found[anchor] = []
            elif isinstance(answer, NearkinError):
                raise answer
            elif missing := _NEEDED.intersection(answer.degraded):
                raise Unavailable("look-up service", f"an answer had to do without {', '.join(sorted(missing))}")
            else:
                found[anchor] = [neighbour.id for neighbour in answer.neighbours]
        answered(len(asked))
    return found
