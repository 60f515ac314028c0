"""A look-up service that keeps what it is asked and answers what a test gives it: for what a server decides."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from nearkin.contracts.v1 import lookup_pb2 as wire
from nearkin.contracts.v1.lookup_pb2_grpc import LookupServiceServicer, add_LookupServiceServicer_to_server


@dataclass
class CannedLookups(LookupServiceServicer):
    """Answers every look-up alike."""

    answer: wire.FindSimilarResponse = field(default_factory=wire.FindSimilarResponse)
    titles: dict[str, str] = field(default_factory=dict)
    asked: list[wire.FindSimilarRequest] = field(default_factory=list)
    address: str = ""

    def FindSimilar(self, request: wire.FindSimilarRequest, context: Any) -> wire.FindSimilarResponse:  # noqa: N802
        self.asked.append(request)
        return self.answer

    def FindSimilarBatch(  # noqa: N802
        self, request: wire.FindSimilarBatchRequest, context: Any
    ) -> wire.FindSimilarBatchResponse:
        self.asked.extend(request.requests)
        return wire.FindSimilarBatchResponse(
            results=[wire.FindSimilarResult(response=self.answer) for _ in request.requests]
        )

    def GetItems(self, request: wire.GetItemsRequest, context: Any) -> wire.GetItemsResponse:  # noqa: N802  # the contract's names
        items = [wire.IndexedItem(item_id=one, title=self.titles.get(one, "")) for one in request.item_ids]
        return wire.GetItemsResponse(items=items)


@contextmanager
def canned_lookups(answer: wire.FindSimilarResponse | None = None, **titles: str) -> Iterator[CannedLookups]:
    """Serve one answer, and the titles of items, on a free port."""
    lookups = CannedLookups(answer or wire.FindSimilarResponse(), titles)
    server = grpc.server(ThreadPoolExecutor(4))
    add_LookupServiceServicer_to_server(lookups, server)
    lookups.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield lookups
    finally:
        server.stop(None).wait()


def explained_answer() -> wire.FindSimilarResponse:
    """Two neighbours with all that an explanation holds."""
    nan = float("nan")
    return wire.FindSimilarResponse(
        neighbours=[
            wire.Neighbour(
                item_id="mug-2",
                score=1.5,
                title="Blue mug",
                sources=[
                    wire.Source(name="content", score=0.75, rank=2),
                    wire.Source(name="co_visits", score=0.25, rank=1),
                ],
                propensity=0.95,
                features=[0.5, 2.0, nan],
                contributions=[0.5, 1.0, 0.0],
            ),
            wire.Neighbour(
                item_id="mug-3",
                score=0.25,
                title="Green mug",
                sources=[wire.Source(name="explored", score=0.0, rank=1)],
                propensity=0.05,
                features=[0.25, 0.0, nan],
                contributions=[0.25, 0.0, 0.0],
            ),
        ],
        collection="items-b",
        bundle="b",
        request_id="r-1",
        degraded=["popular"],
        ranking="weights-1",
        feature_names=["fused", "log_coec", "price_gap"],
        moved=[
            wire.Moved(item_id="mug-4", by="blocked", **{"from": 1}, to=0),
            wire.Moved(item_id="mug-3", by="explored", **{"from": 7}, to=2),
        ],
        draw="explored position 2",
    )
