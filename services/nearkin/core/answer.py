"""What a look-up answered and why: enough to train a ranker on, to estimate other policies by, and to explain it later.

A ranker learns from the features of what was shown; an estimate off policy divides by the propensity with which an item
was shown at its position, and by the rate with which such an answer is logged at all; a person reads which source named
an item, what ranking made of it, and what a rule or the draw changed. It holds nothing personal and no item's text.
"""

import hashlib
from dataclasses import dataclass

from nearkin.core.candidates import Source
from nearkin.core.exploration import Policy
from nearkin.core.item import Content
from nearkin.core.rules import Moved


@dataclass(frozen=True, slots=True)
class Placed:
    """One item of an answer.

    Attributes:
        item_id: the item.
        position: where it stands, from 1.
        score: what ranking gave it; comparable within one answer only.
        propensity: with which probability, over all request ids, this item stands at this position, above 0.
        explored: whether the draw put it there, not the order.
        sources: who named it, with score and rank there.
        features: what it was ranked by, in the order of the answer's `feature_names`; none where it was not ranked.
    """

    item_id: str
    position: int
    score: float
    propensity: float = 1.0
    explored: bool = False
    sources: tuple[Source, ...] = ()
    features: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class LoggedAnswer:
    """One answer as it is logged.

    Attributes:
        request_id: of the look-up; one that is sent again has the same.
        at_ms: when it was answered, in milliseconds since the epoch, by the server's clock.
        anchor: the item that was looked up; None where it was a content, which is not logged.
        k: how many neighbours were asked for.
        ranking: what decided the order: a ranking such as "combined", or "dense" or "lexical" for a search's own.
        positions: what was shown, in order.
        weights: the id of the weights that gave the scores; empty where none did.
        feature_names: what the features are, once for all positions.
        features_version: of the definition of the features; 0 where there are none.
        collection: which collection of the index answered; empty where the index could not be asked.
        bundle: the encoder bundle of its vectors; empty likewise.
        surface: where it is shown; empty where the caller did not say.
        market: for which market; empty where the caller did not say.
        priors_version: of the position priors in force; empty where none were read.
        degraded: what the answer had to do without, such as "index"; empty where it is whole.
        moved: what rules, pins and diversity did, in order; also to items that are not shown. Ranks of rules are those
            by score among all candidates, ranks of diversity those among what the rules left.
        policy: which policy of the draw gave the answer.
        log_rate: with which probability such an answer is logged; `lookup.log_answers` sets it.
        content_hash: tells the contents that were looked up apart (`hash_content`), and is no more logged than they
            are; empty where the anchor is an item.
    """

    request_id: str
    at_ms: int
    anchor: str | None
    k: int
    ranking: str
    positions: tuple[Placed, ...]
    weights: str = ""
    feature_names: tuple[str, ...] = ()
    features_version: int = 0
    collection: str = ""
    bundle: str = ""
    surface: str = ""
    market: str = ""
    priors_version: str = ""
    degraded: tuple[str, ...] = ()
    moved: tuple[Moved, ...] = ()
    policy: Policy = Policy.GREEDY
    log_rate: float = 1.0
    content_hash: str = ""

    @property
    def is_explored(self) -> bool:
        """Whether the draw changed the answer, or could have: it is logged whatever the rate."""
        return self.policy is not Policy.GREEDY

    @property
    def event_id(self) -> str:
        """The name of its event, 32 hex digits: the same for a look-up that is sent again, whoever answers it.

        A caller that gives one request id to look-ups of several anchors, surfaces or rankings still has an event of
        each.
        """
        asked = (self.request_id, self.anchor or "", self.surface, self.ranking, self.content_hash)
        return _hash("\0".join(map(str, asked)), b"answer", 16).hex()


def hash_content(content: Content) -> str:
    """Tells one content from another, in 32 hex digits: the same on every server, whatever the order of attributes."""
    parts = (
        *(content.title, content.description, content.language, content.maker, content.categories, content.tags),
        sorted(content.attributes.items()),
    )
    return _hash(repr(parts), b"content", 16).hex()


def is_sampled(request_id: str, rate: float) -> bool:
    """Whether an answer is among those that are logged: by its request id alone, so the same on every server.

    The hash is salted, so that what is logged does not depend on the draw that the same id seeds.

    Args:
        request_id: of the look-up.
        rate: the share that is logged, from 0 to 1.
    """
    return int.from_bytes(_hash(request_id, b"sample", 8), "big") < rate * 2.0**64


def _hash(text: str, salt: bytes, size: int) -> bytes:
    # A lone surrogate is refused where the answer is encoded, not here, where the reply would wait for the refusal.
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=size, person=b"nearkin-" + salt).digest()
