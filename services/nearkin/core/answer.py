"""What a look-up answered and why: enough to train a ranker on, to estimate other policies by, and to explain it later.

A ranker learns from the features of what was shown; an estimate off policy divides by the propensity with which an item
was shown at its position, and by the rate with which such an answer is logged at all; a person reads which source named
an item, what ranking made of it, and what a rule or a draw changed. Nothing personal is in it, and no text of an item.
"""

import hashlib
from dataclasses import dataclass

from nearkin.core.candidates import Source


@dataclass(frozen=True, slots=True)
class Placed:
    """One item of an answer.

    Attributes:
        item_id: the item.
        position: where it stands, from 1.
        score: by which it was ranked; comparable within one answer only.
        propensity: with which probability the policy put this item at this position, above 0; 1 where nothing is drawn.
        sources: who named it, with score and rank there.
        features: what it was ranked by, in the order of the answer's `feature_names`; NaN where not known.
        ranked: its place by score alone, from 1; None where ranking did not place it.
        moved: what else decided its position, in order, such as "diversity", "pinned" or "explored"; empty where
            ranking alone did.
    """

    item_id: str
    position: int
    score: float
    propensity: float = 1.0
    sources: tuple[Source, ...] = ()
    features: tuple[float, ...] = ()
    ranked: int | None = None
    moved: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LoggedAnswer:
    """One answer as it is logged.

    Attributes:
        request_id: of the look-up; a retried one has the same, and so has what was shown of it.
        at_ms: when it was answered, in milliseconds since the epoch, by the server's clock.
        anchor: the item that was looked up; None where it was a content, which is not logged.
        k: how many neighbours were asked for.
        collection: which collection of the index answered.
        bundle: the encoder bundle of its vectors.
        ranking: the kind of ranking, such as "baseline".
        weights_version: of the weights it ranked with.
        features_version: of the definition of the features.
        feature_names: what the features are, once for all positions.
        positions: what was shown, in order.
        surface: where it is shown; empty where the caller did not say.
        market: for which market; empty where the caller did not say.
        priors_version: of the position priors in force; empty where none were read.
        degraded: what was missing, such as "evidence"; empty where everything answered.
        explored: which draw changed the answer, such as "positions" or "slate"; empty where none did. Such an answer is
            always logged.
        log_rate: with which probability an answer as this one is logged; the log sets it.
    """

    request_id: str
    at_ms: int
    anchor: str | None
    k: int
    collection: str
    bundle: str
    ranking: str
    weights_version: str
    features_version: str
    feature_names: tuple[str, ...]
    positions: tuple[Placed, ...]
    surface: str = ""
    market: str = ""
    priors_version: str = ""
    degraded: tuple[str, ...] = ()
    explored: str = ""
    log_rate: float = 1.0

    @property
    def event_id(self) -> str:
        """The name of its event, 32 hex digits: the same for a retried request, wherever it is answered.

        A caller that gives one request id to look-ups of several anchors or surfaces still has an event of each.
        """
        told = "\0".join((self.request_id, self.anchor or "", self.surface))
        return _hash(told, b"answer", 16).hex()


def is_sampled(request_id: str, rate: float) -> bool:
    """Whether an answer is among those that are logged: by its request id alone, so the same on every server.

    The hash is salted, so that what is logged depends on no draw that the same id seeds.

    Args:
        request_id: of the look-up.
        rate: the share that is logged, from 0 to 1.
    """
    return int.from_bytes(_hash(request_id, b"sample", 8), "big") < rate * 2.0**64


def _hash(text: str, salt: bytes, size: int) -> bytes:
    # A lone surrogate cannot be logged; it is refused where the answer is encoded, not here, in the way of the reply.
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=size, person=b"nearkin-" + salt).digest()
