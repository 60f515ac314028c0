"""What was fetched a moment ago, within bounds: by reference for a while, and each content once, by its hash.

References are kept as hashes, as they may hold signatures.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable

from nearkin.media.kinds import Media

#: References remembered at most, at about 200 bytes each.
MOST_REFERENCES = 65_536


class MediaCache:
    """Media that were fetched lately; those longest unused are forgotten first.

    Args:
        most_bytes: of contents in all; 0 keeps nothing.
        lifetime_s: how long a reference stands for what it gave.
        clock: the time in seconds.
    """

    def __init__(self, most_bytes: int, lifetime_s: float, clock: Callable[[], float]) -> None:
        self._most_bytes, self._lifetime_s, self._clock = most_bytes, lifetime_s, clock
        self._bytes = 0
        self._media: OrderedDict[str, Media] = OrderedDict()
        self._references: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    @property
    def bytes_held(self) -> int:
        """The size of all contents."""
        return self._bytes

    def recall(self, reference: str) -> Media | None:
        """What a reference gave, where that is known still."""
        key = _key(reference)
        sha256, until = self._references.get(key, ("", 0.0))
        if self._clock() >= until:
            self._references.pop(key, None)
            return None
        media = self._media.get(sha256)
        if media is not None:
            self._media.move_to_end(sha256)
        return media

    def keep(self, reference: str, media: Media) -> Media:
        """Remember what a reference gave.

        Returns:
            the media, of which one object stands for all of the same content.
        """
        if len(media.content) > self._most_bytes:
            return media
        known = self._media.get(media.sha256)
        if known is None:
            known = media
            self._media[media.sha256] = media
            self._bytes += len(media.content)
        self._media.move_to_end(media.sha256)
        while self._bytes > self._most_bytes:
            self._bytes -= len(self._media.popitem(last=False)[1].content)
        now, key = self._clock(), _key(reference)
        self._references[key] = (media.sha256, now + self._lifetime_s)
        self._references.move_to_end(key)
        # All live equally long, so those that come to their end first stand first.
        while len(self._references) > MOST_REFERENCES or next(iter(self._references.values()))[1] <= now:
            self._references.popitem(last=False)
            if not self._references:
                break
        return known


def _key(reference: str) -> bytes:
    return hashlib.sha256(reference.encode(errors="surrogatepass")).digest()
