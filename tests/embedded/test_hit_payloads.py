"""What the owner remembers of points: within its bound, and nothing of a point that changed."""

from collections.abc import Iterator, Sequence

import pytest
from qdrant_client import grpc as wire

from nearkin.embedded import hit_payloads
from nearkin.embedded.hit_payloads import HitPayloads


class Points:
    """Points with a title that can be changed, and a count of how many were read."""

    def __init__(self) -> None:
        self.title = "first"
        self.reads = 0

    def read(self, ids: Sequence[object], fields: Sequence[str]) -> Iterator[tuple[object, bytes]]:
        for point_id in ids:
            self.reads += 1
            yield (
                point_id,
                wire.ScoredPoint(payload={field: wire.Value(string_value=self.title) for field in fields})
                .SerializeToString(),
            )  # fmt: skip


def titles(memory: HitPayloads, ids: Sequence[int]) -> list[str]:
    return [hit.payload["title"].string_value for hit in memory.of(ids, ["title"]).values()]


def test_a_point_is_read_once_until_it_is_forgotten() -> None:
    points = Points()
    memory = HitPayloads(points.read)
    assert titles(memory, [1, 2, 1]) == ["first", "first"]
    points.title = "second"
    assert titles(memory, [1, 2]) == ["first", "first"]
    memory.forget([1])
    assert titles(memory, [1, 2]) == ["second", "first"]
    memory.forget_all()
    assert titles(memory, [2]) == ["second"]
    assert points.reads == 4


def test_other_fields_are_read_anew() -> None:
    points = Points()
    memory = HitPayloads(points.read)
    assert titles(memory, [1]) == ["first"]
    assert set(memory.of([1], ["id", "title"])[1].payload) == {"id", "title"}


def test_the_least_recently_found_points_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hit_payloads, "MOST_BYTES", 2_000)
    points = Points()
    memory = HitPayloads(points.read)
    assert len(titles(memory, range(100))) == 100
    reads = points.reads
    titles(memory, [99])
    assert points.reads == reads
    titles(memory, [0])
    assert points.reads == reads + 1
