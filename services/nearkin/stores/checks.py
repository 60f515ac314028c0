"""What every index refuses of a batch before it sends or applies any of it: mistakes of the caller."""

from collections.abc import Sequence

import numpy as np

from nearkin.core.ports import ItemWrite, Stored
from nearkin.core.vectors import Vectors


def check_writes(writes: Sequence[ItemWrite]) -> None:
    """Refuse a batch that no index could apply as it is meant.

    Raises:
        ValueError: two writes are of one item, vectors are to be kept where none are held, or a vector is not finite
            (engines take NaN in silence, and such a point spoils every ranking).
    """
    seen = set()
    for write in writes:
        item_id = write.item.state.id
        if item_id in seen:
            raise ValueError(f"one batch holds two writes of item {item_id!r}; merge them first")
        seen.add(item_id)
        if write.vectors is Stored.VECTORS and write.expected is None:
            raise ValueError(f"item {item_id!r} was not held, so it has no stored vectors to keep")
        if isinstance(write.vectors, Vectors):
            for name, values in (("content", write.vectors.content), ("lexical", write.vectors.lexical.values)):
                if not np.isfinite(values).all():
                    raise ValueError(f"the {name} vector of item {item_id!r} holds NaN or infinity")
