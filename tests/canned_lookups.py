"""A look-up service that keeps what it is asked and answers what a test gives it: for what a server decides."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from nearkin.contracts.v1 import lookup_pb2 as wire
from nearkin.contracts.v1.lookup_pb2_grpc import LookupServiceServicer, add_LookupServiceServicer_to_server
from nearkin.core.answer import Placed
from nearkin.core.candidates import CandidateSource, ItemFacts, Source
from nearkin.core.exploration import Policy
from nearkin.core.features import FEATURE_NAMES
from nearkin.core.ranking import RankingWeights
from nearkin.core.rules import Moved, Rule
from nearkin.lookup.encode_answer import encode_answer
from nearkin.lookup.find_similar import Answer
from nearkin.lookup.request import SimilarTo


@dataclass
class CannedLookups(LookupServiceServicer):
    """Answers every look-up alike, but for the first `refusals`, which it cannot take."""

    answer: wire.FindSimilarResponse = field(default_factory=wire.FindSimilarResponse)
    titles: dict[str, str] = field(default_factory=dict)
    asked: list[wire.FindSimilarRequest] = field(default_factory=list)
    address: str = ""
    refusals: int = 0
    refuses_with: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE

    def FindSimilar(self, request: wire.FindSimilarRequest, context: Any) -> wire.FindSimilarResponse:  # noqa: N802
        self.asked.append(request)
        if self.refusals:
            self.refusals -= 1
            context.abort(self.refuses_with, "the test says so")
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


#: What the features weigh in the answer below.
WEIGHTS = RankingWeights("weights-1", dict.fromkeys(FEATURE_NAMES, 0.0) | {"fused": 1.0, "coec": 0.5})


def explained_answer() -> wire.FindSimilarResponse:
    """Two neighbours with all that an explanation holds; the second one is a new item that the draw put there."""
    answer = Answer(
        SimilarTo("mug-1", request_id="r-1"),
        (
            Placed(
                "mug-2",
                1,
                1.5,
                0.95,
                sources=(Source(CandidateSource.CONTENT, 0.75, 2), Source(CandidateSource.CO_VISITS, 0.25, 1)),
                features=_features(fused=0.5, coec=2.0, price=-1.0),
            ),
            Placed(
                "mug-3",
                2,
                0.25,
                0.05,
                explored=True,
                sources=(Source(CandidateSource.CONTENT, 0.5, 9), Source(CandidateSource.EXPLORED, 0.05, 2)),
                features=_features(fused=0.25),
            ),
        ),
        (ItemFacts("mug-2", "Blue mug"), ItemFacts("mug-3", "Green mug")),
        WEIGHTS.id,
        WEIGHTS,
        (
            Moved("mug-4", Rule.BLOCKED_ITEM, 1),
            Moved("mug-5", Rule.NEAR_DUPLICATE, 4, because_of="mug-2"),
            Moved("mug-2", Rule.DIVERSITY, 2, 1),
        ),
        Policy.NEW_ITEM,
        "items-b",
        "b",
        ("popular",),
        0,
    )
    return encode_answer(answer, explain=True)


def _features(**values: float) -> tuple[float, ...]:
    return tuple(values.get(name, 0.0) for name in FEATURE_NAMES)
