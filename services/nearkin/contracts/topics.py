"""The Kafka topics and the settings that each must have; AsyncAPI says the same and a test compares them."""

from dataclasses import dataclass

DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it must be on the broker.

    Attributes:
        name: its name.
        retention_ms: how long records are kept.
        max_message_bytes: the largest record batch that the broker takes.
        cleanup_policy: always "delete": compaction keeps the last record of a key, which would erase an item's content
            and every exposure of an anchor but one.
    """

    name: str
    retention_ms: int
    max_message_bytes: int = 1_048_576
    cleanup_policy: str = "delete"

    @property
    def dead_letters(self) -> "Topic":
        """The topic that takes what cannot be served from this one; kept longer, so that there is time to mend it."""
        return Topic(f"{self.name}.dlq", 2 * self.retention_ms, 2 * self.max_message_bytes)


ITEMS = Topic("items.v1", 14 * DAY_MS)
ITEMS_BULK = Topic("items-bulk.v1", 14 * DAY_MS)

FEEDBACK = Topic("feedback.v1", 14 * DAY_MS)
VISITS = Topic("visits.v1", 14 * DAY_MS)

#: What look-up servers answered, kept as long as the feedback that refers to it. Nobody else sends to it, and what
#: cannot be read of it is passed over, so it has no dead letters.
LOOKUPS = Topic("lookups.v1", 14 * DAY_MS)

#: What producers send to.
SOURCES = (ITEMS, ITEMS_BULK, FEEDBACK, VISITS)
#: Every topic, dead letters included, in the order in which they are made.
TOPICS = (*SOURCES, LOOKUPS, *(topic.dead_letters for topic in SOURCES))

#: The consumer group that serves each topic: those who serve, and those who watch how far they are, agree on it here.
GROUPS = {
    ITEMS: "nearkin-indexer-live",
    ITEMS_BULK: "nearkin-indexer-bulk",
    FEEDBACK: "nearkin-feedback",
    VISITS: "nearkin-feedback",
}
