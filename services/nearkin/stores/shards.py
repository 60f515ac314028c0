"""Which shard of the evidence an item belongs to.

The number comes from the hash by which Kafka's own partitioner places a key (murmur2): where the number of partitions
divides the number of shards, each shard is fed by one partition of a topic whose keys are the items.
"""

from collections.abc import Sequence
from functools import lru_cache

from aiokafka.partitioner import murmur2

from nearkin.core.evidence import RESERVED, ShardBatch

#: For the life of a store: with another number, every guard would mean something else.
SHARDS = 64


@lru_cache(maxsize=65_536)
def shard_of(item_id: str) -> int:
    """The number of the shard that holds an item's evidence, from 0; a reserved anchor names its own at its end."""
    if item_id.startswith(RESERVED):
        return int(item_id.rpartition(":")[2])
    return int(murmur2(item_id.encode()) & 0x7FFF_FFFF) % SHARDS


def check_shards(batches: Sequence[ShardBatch]) -> None:
    """Refuse what would be kept where nobody looks for it.

    Raises:
        ValueError: there is no such shard, or a delta's anchor is not of its batch's shard.
    """
    for batch in batches:
        if not 0 <= batch.shard < SHARDS:
            raise ValueError(f"there is no shard {batch.shard}: they are numbered from 0 to {SHARDS - 1}")
        for delta in batch.deltas:
            if shard_of(delta.anchor) != batch.shard:
                raise ValueError(f"anchor {delta.anchor!r} is of shard {shard_of(delta.anchor)}, not {batch.shard}")
