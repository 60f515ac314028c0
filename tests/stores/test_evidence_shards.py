import pytest
from kafka.partitioner.default import DefaultPartitioner

from nearkin.stores.shards import SHARDS, shard_of


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        # Apache Kafka's own examples of its hash (UtilsTest.testMurmur2).
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    ],
)
def test_the_shard_comes_from_the_hash_by_which_kafka_places_keys(key: str, hashed: int) -> None:
    assert shard_of(key) == (hashed & 0x7FFF_FFFF) % SHARDS


class Cluster:
    """What the partitioner asks of a cluster."""

    def __init__(self, partitions: int) -> None:
        self.partitions = set(range(partitions))

    def topics(self) -> set[str]:
        return {"t"}

    def partitions_for_topic(self, topic: str) -> set[int]:
        return self.partitions

    available_partitions_for_topic = partitions_for_topic


@pytest.mark.parametrize("partitions", [1, 4, 16, 64])
def test_each_shard_is_fed_by_one_partition_of_a_topic_keyed_by_items(partitions: int) -> None:
    cluster = Cluster(partitions)
    for number in range(300):
        key = f"item-{number}"
        placed = DefaultPartitioner().partition("t", key, key.encode(), None, None, cluster)
        assert placed == shard_of(key) % partitions
