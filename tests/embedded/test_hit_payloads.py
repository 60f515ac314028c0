"""What the owner remembers of points: within its bound, and nothing of a point that changed."""

from collections.abc import Iterator, Sequence
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import grpc as wire

from nearkin.embedded import hit_payloads
from nearkin.embedded.edge_messages import PointId
from nearkin.embedded.hit_payloads import HitPayloads

#: A point that is not held.
MISSING = 13_013


class Points:
    """Points with a title that can be changed, and a count of how many were read."""

    def __init__(self) -> None:
        self.title = "first"
        self.reads = 0

    def read(self, ids: Sequence[PointId], fields: Sequence[str]) -> Iterator[tuple[PointId, bytes]]:
        for point_id in ids:
            self.reads += 1
            if point_id != MISSING:
                hit = wire.ScoredPoint(payload={field: wire.Value(string_value=self.title) for field in fields})
                yield point_id, wire.BatchResult(result=[hit]).SerializeToString()


def hits(memory: HitPayloads, ids: Sequence[PointId], fields: Sequence[str] = ("title",)) -> list[wire.ScoredPoint]:
    packed = memory.of(ids, list(fields))
    assert len(packed) == len(ids)
    return list(wire.BatchResult.FromString(b"".join([one for one in packed if one is not None])).result)


def titles(memory: HitPayloads, ids: Sequence[PointId]) -> list[str]:
    return [hit.payload["title"].string_value for hit in hits(memory, ids)]


def test_a_point_is_read_once_until_it_is_forgotten() -> None:
    points = Points()
    memory = HitPayloads(points.read)
    assert titles(memory, [1, 2, 1]) == ["first", "first", "first"]
    points.title = "second"
    assert titles(memory, [1, 2]) == ["first", "first"]
    memory.forget([1])
    assert titles(memory, [1, 2]) == ["second", "first"]
    memory.forget_all()
    assert titles(memory, [2]) == ["second"]
    assert points.reads == 4


def test_a_point_that_is_not_held_has_no_bytes_and_the_others_keep_their_places() -> None:
    points = Points()
    first, missing, last = HitPayloads(points.read).of([1, MISSING, 2], ["title"])
    assert (first is None, missing, last is None) == (False, None, False)


def test_ids_of_every_kind_are_told_apart() -> None:
    points = Points()
    memory = HitPayloads(points.read)
    ids: list[PointId] = [0, 1, UUID(int=0), UUID(int=1)]
    assert len(titles(memory, ids)) == 4
    assert points.reads == 4
    assert titles(memory, [str(UUID(int=1))]) == ["first"]
    assert points.reads == 4, "a UUID in words is the UUID"


def test_other_fields_are_read_anew() -> None:
    points = Points()
    memory = HitPayloads(points.read)
    assert titles(memory, [1]) == ["first"]
    assert set(hits(memory, [1], ["id", "title"])[0].payload) == {"id", "title"}


def test_points_that_were_not_found_of_late_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hit_payloads, "MOST_BYTES", 4_000)
    points = Points()
    memory = HitPayloads(points.read)
    for number in range(100):
        assert titles(memory, [number, 1_000]) == ["first", "first"]
    assert points.reads == 101, "what is found all the time stays"
    titles(memory, [99])
    assert points.reads == 101
    titles(memory, [0])
    assert points.reads == 102


@given(st.lists(st.tuples(st.sampled_from(["find", "change", "change all"]), st.sets(st.integers(0, 30)))))
def test_what_is_told_is_what_is_held_now_and_what_is_remembered_is_bounded(steps: list[tuple[str, set[int]]]) -> None:
    held = dict.fromkeys(range(31), 0)

    def read(ids: Sequence[PointId], fields: Sequence[str]) -> Iterator[tuple[PointId, bytes]]:
        return ((one, b"%d:%d" % (one, held[one])) for one in ids if isinstance(one, int))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(hit_payloads, "MOST_BYTES", 1_500)
        memory = HitPayloads(read)
        for step, ids in steps:
            if step == "find":
                assert memory.of(list(ids), ["title"]) == [b"%d:%d" % (one, held[one]) for one in ids]
            elif step == "change":
                held.update({one: held[one] + 1 for one in ids})
                memory.forget(ids)
            else:
                held = {one: version + 1 for one, version in held.items()}
                memory.forget_all()
            assert len(memory._young) <= 750 // 180 + 1
