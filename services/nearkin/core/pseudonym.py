"""Makes pseudonyms of users: a keyed hash, so that who lacks the key can neither tell nor try out who is meant.

A pseudonym is `<key id>:<32 hex digits>`: the first 128 bits of HMAC-SHA-256 (RFC 2104; truncated as its section 5
allows) of the user's id in UTF-8. The key id tells under which key it was made, so that keys can rotate.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Self

#: How a key is written; its digits are twice as many as a pseudonym's, so neither is taken for the other.
KEY_FORM = "<key id>:<64 hex digits>"

_KEY = re.compile(r"([A-Za-z0-9_-]{1,32}):([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class PseudonymKey:
    """A secret key, and the id that names it in every pseudonym.

    Attributes:
        id: the key's id.
        secret: the key itself: 256 bits.
    """

    id: str
    secret: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a key in the form `KEY_FORM`.

        Raises:
            ValueError: it has another form; quotes nothing of it.
        """
        found = _KEY.fullmatch(text)
        if found is None:
            raise ValueError(f"it has not the form {KEY_FORM}")
        return cls(found[1], bytes.fromhex(found[2]))

    def pseudonym(self, user: str) -> str:
        """The pseudonym of a user's id, taken as it is: `Ann` and `ann` are two."""
        digest = hmac.digest(self.secret, user.encode(), hashlib.sha256)
        return f"{self.id}:{digest[:16].hex()}"
