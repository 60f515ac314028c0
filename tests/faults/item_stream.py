"""Streams of real items' events in a random order, and what an index that saw all of them must hold.

Products are of the catalogue that ships. Each gets a history on one clock: texts, offers, deletions and revivals. The
stream repeats events and shuffles them, so that an older version follows a newer one and a deletion comes before what
it deletes. The reference merges nothing but `core.item.merge`, over the events as they happened.
"""

import asyncio
import random
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

from nearkin.contracts.events import Kind, decode_item_event, encode_deleted, encode_offered, encode_upserted
from nearkin.core.item import Availability, Content, ItemState, Offer, Price, Status, merge
from nearkin.core.ports import ContentEncoder, IndexCounts, ItemCollection, Search
from nearkin.core.vectors import VectorName, Vectors
from nearkin.embedded.catalogue.online_retail import CURRENCY, CatalogueItem, load_catalogue

OCCURRED_AT = 1_760_000_000_000

#: What makes two texts of one product differ.
COLOURS = ("red", "green", "blue", "white", "black", "pink", "silver", "gold")

_PAGE = 500

#: The versions of one history lie below so many.
_VERSIONS = 1_000_000


@dataclass(frozen=True, slots=True)
class Event:
    """An event as it goes to the broker, and the state that it alone gives."""

    key: bytes
    value: bytes
    state: ItemState
    kind: Kind


def event_of(key: bytes, value: bytes) -> Event:
    decoded = decode_item_event(key, value)
    return Event(key, value, decoded.state, decoded.kind)


def upsert(item_id: str, title: str, version: int = 1, **content: object) -> Event:
    """An event that says what an item is."""
    made = Content(title=title, **content)  # type: ignore[arg-type]  # whatever the caller names
    return event_of(*encode_upserted(item_id, made, version, event_id=f"{item_id}-{version}", occurred_at=OCCURRED_AT))


def make_stream(seed: int, items: int, repeated: float = 0.2) -> list[Event]:
    """A shuffled stream of the histories of some products.

    Args:
        seed: the same seed gives the same stream.
        items: how many products.
        repeated: the share of events that come twice.
    """
    draw = random.Random(seed)
    events = [event for item in draw.sample(load_catalogue(), items) for event in _history(item, draw)]
    stream = [*events, *draw.sample(events, int(len(events) * repeated))]
    draw.shuffle(stream)
    return stream


class ItemStream:
    """Makes events without end, of few items: each gets another history again and again, newer than the former one.

    Some events come again, nearly at once or when far newer ones have come.

    Args:
        seed: the same seed gives the same stream.
        items: of how many products.

    Attributes:
        ids: of these.
    """

    def __init__(self, seed: int | str, items: int = 200) -> None:
        self._draw = random.Random(seed)
        self._items = self._draw.sample(load_catalogue(), items)
        self.ids = [item.id for item in self._items]
        self._histories = 0
        self._coming: list[Event] = []
        self._before: deque[Event] = deque(maxlen=2000)

    def make(self, events: int) -> list[Event]:
        """The next events; a fifth of them came before."""
        made = []
        for _ in range(events):
            if self._before and self._draw.random() < 0.2:
                back = min(int(self._draw.expovariate(1 / 200)) + 1, len(self._before))
                made.append(self._before[-back])
                continue
            if not self._coming:
                some = self._draw.sample(self._items, len(self._items) // 4)
                start = self._histories * _VERSIONS
                self._coming = [event for item in some for event in _history(item, self._draw, start)]
                self._draw.shuffle(self._coming)
                self._histories += 1
            made.append(self._coming.pop())
            self._before.append(made[-1])
        return made


def _history(item: CatalogueItem, draw: random.Random, start: int = 0) -> list[Event]:
    """One product's events. No two of a kind share a version, which would be a producer's error."""
    kinds = draw.choices([Kind.UPSERTED, Kind.OFFERED, Kind.DELETED], weights=[5, 3, 1], k=draw.randint(1, 6))
    versions = sorted(start + version for version in draw.sample(range(_VERSIONS), 2 * len(kinds)))
    return [
        _event(item, kind, version, draw.choice([version, offer_version]), draw)
        for kind, version, offer_version in zip(kinds, versions[::2], versions[1::2], strict=True)
    ]


def _event(item: CatalogueItem, kind: Kind, version: int, offer_version: int, draw: random.Random) -> Event:
    named = {"event_id": f"{item.id}-{version}", "occurred_at": OCCURRED_AT + version}
    offer = Offer(
        Price(round(item.price * draw.uniform(0.5, 1.5), 2), CURRENCY), draw.choice(list(Availability)), item.markets
    )
    if kind is Kind.DELETED:
        return event_of(*encode_deleted(item.id, version, **named))
    if kind is Kind.OFFERED:
        return event_of(*encode_offered(item.id, offer, offer_version, **named))
    content = Content(
        title=item.title if draw.random() < 0.5 else f"{item.title} {draw.choice(COLOURS)}",
        tags=(draw.choice(COLOURS),),
        status=Status.HIDDEN if draw.random() < 0.05 else Status.ACTIVE,
    )
    if draw.random() < 0.5:
        return event_of(*encode_upserted(item.id, content, version, **named))
    return event_of(*encode_upserted(item.id, content, version, offer=offer, offer_version=offer_version, **named))


def reference(events: Iterable[Event]) -> dict[str, ItemState]:
    """What an index must hold that saw these events, whatever their order."""
    histories: dict[str, list[ItemState]] = {}
    for event in events:
        histories.setdefault(event.state.id, []).append(event.state)
    ordered = {
        item_id: sorted(states, key=lambda state: max(state.content_version, state.offered_version))
        for item_id, states in histories.items()
    }
    return {item_id: reduce(merge, states) for item_id, states in ordered.items()}


async def require_exactly(
    items: ItemCollection, expected: dict[str, ItemState], encoder: ContentEncoder, sample: int = 40
) -> None:
    """Compare a whole index with the reference: every item, exactly once, at its newest versions, and no other.

    A sample of the items is searched for by their newest content, so that an old vector below a new text is seen.
    """
    ids = sorted(expected)
    held = {}
    for start in range(0, len(ids), _PAGE):
        held |= await items.read(ids[start : start + _PAGE])
    wrong = [item_id for item_id in ids if item_id not in held or held[item_id].state != expected[item_id]]
    told = [f"{one}: must be {expected[one]}, is {held[one].state if one in held else 'not there'}" for one in wrong]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(ids)} items are not at their newest state", *told[:5]])

    present = [item_id for item_id in ids if expected[item_id].is_present]
    assert await items.count() == IndexCounts(points=len(present), tombstones=len(ids) - len(present))
    stale = [one for one in present if held[one].fingerprint != encoder.fingerprint(_content(expected[one]))]
    assert not stale, f"encoded from another content: {stale[:5]}"
    await _require_found([expected[one] for one in present if expected[one].is_visible][:sample], items, encoder)


async def _require_found(states: Sequence[ItemState], items: ItemCollection, encoder: ContentEncoder) -> None:
    encoded = await asyncio.to_thread(encoder.encode, [_content(state) for state in states])
    vectors = [each.content for each in encoded if isinstance(each, Vectors)]
    assert len(vectors) == len(states)
    searches = [Search(VectorName.CONTENT, vector, limit=20, exact=True) for vector in vectors]
    for state, hits in zip(states, await items.search(searches), strict=True):
        own = [hit.score for hit in hits if hit.id == state.id]
        assert own, f"{state.id} is not found by its own content"
        assert own[0] > 0.98, f"{state.id} has the vector of another content: cosine {own[0]:.3f}"


def absorbed(state: ItemState, event: Event) -> bool:
    """Whether a state has seen an event: merging it again changes nothing."""
    return merge(state, event.state) == state


def _content(state: ItemState) -> Content:
    assert state.content is not None
    return state.content
