"""What people did with what they were shown: the three kinds of event that evidence is made of.

An exposure is an item that was *visible* at a position: a slate is sent once its visibility is known, and what nobody
could see says nothing of its items. An action names the slate that it came from where it is known. A visit holds what
was seen or bought together. People appear only as pseudonyms, and only so that one person's weight can be bounded.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Action(StrEnum):
    """What somebody did with an item that was shown beside an anchor."""

    CLICK = "click"
    LONG_VIEW = "long_view"
    LIKE = "like"
    SAVE = "save"
    PURCHASE = "purchase"
    SKIP = "skip"
    DISLIKE = "dislike"
    HIDE = "hide"
    REPORT = "report"


class VisitKind(StrEnum):
    """What holds a visit's items together."""

    BASKET = "basket"
    SESSION = "session"


class Shown(NamedTuple):
    """One place of a slate.

    Attributes:
        item_id: the item that stood there.
        position: where, counted from 1.
        propensity: with which probability the policy put the item there; None where it is not known.
        visible: whether it could be seen; an item that could not be seen had no exposure.
    """

    item_id: str
    position: int
    propensity: float | None = None
    visible: bool = True


@dataclass(frozen=True, slots=True)
class Impressions:
    """One slate as somebody had it before them.

    Attributes:
        event_id: the producer's name for the event; a repetition has the same.
        occurred_at: when it happened, in milliseconds since the epoch.
        anchor: the item whose neighbours were shown.
        request_id: the look-up that gave the slate.
        surface: where it was shown, such as "product-page": position bias is learned per surface.
        positions: the items; no item and no position twice, and not the anchor.
        market: where; empty where it is not known.
        user: a pseudonym.
    """

    event_id: str
    occurred_at: int
    anchor: str
    request_id: str
    surface: str
    positions: tuple[Shown, ...]
    market: str = ""
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Interaction:
    """One thing that somebody did with an item that was shown beside an anchor.

    Attributes:
        event_id: the producer's name for the event; a repetition has the same.
        occurred_at: when it happened, in milliseconds since the epoch.
        anchor: the item whose neighbours were shown.
        item_id: the neighbour; never the anchor itself.
        action: what was done.
        value: how much of it, such as the pieces of a purchase.
        request_id: the look-up that gave the slate; None where it is not known.
        position: where the item stood in it, counted from 1; None where it is not known.
        user: a pseudonym.
        surface: where it was shown, as in its impressions; None where it is not known.
        propensity: with which probability the policy put the item there; None where it is not known.
    """

    event_id: str
    occurred_at: int
    anchor: str
    item_id: str
    action: Action
    value: float = 1.0
    request_id: str | None = None
    position: int | None = None
    user: str | None = None
    surface: str | None = None
    propensity: float | None = None


@dataclass(frozen=True, slots=True)
class Visit:
    """Items that were seen or bought together.

    Attributes:
        event_id: the producer's name for the event; a repetition has the same.
        occurred_at: when it happened, in milliseconds since the epoch.
        visit_id: the basket or the session.
        kind: which of the two it is.
        items: its items, each once, in the order in which they were first named.
        user: a pseudonym.
    """

    event_id: str
    occurred_at: int
    visit_id: str
    kind: VisitKind
    items: tuple[str, ...]
    user: str | None = None
