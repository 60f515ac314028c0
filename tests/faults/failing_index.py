"""A gRPC hop before the index that fails some writes: a proxy below gRPC can break a call, but not answer it."""

import asyncio
import random
import threading
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from nearkin.embedded.programs import LOOPBACK

#: What a Qdrant server answers in trouble of its own, and a proxy before it.
_CODES = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)

#: The calls that change the index.
_WRITES = ("Upsert", "UpdateBatch")


class FailingIndex:
    """Hands every call on as it is, but answers some writes with an error: before the index saw them, or after.

    Args:
        to: host:port of the index.
        share: of the writes that fail.
        seed: which of them do.

    Attributes:
        address: where its clients come to.
        failed: how many writes did.
    """

    def __init__(self, to: str, share: float, seed: int) -> None:
        self._to, self._share, self._draw = to, share, random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="failing index", daemon=True)
        self.address, self.failed = "", 0

    def mend(self) -> None:
        """Fail no write any more."""
        self._share = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        self._channel = grpc.aio.insecure_channel(self._to)
        self._server = grpc.aio.server(handlers=[_Everything(self._answer)])
        self.address = f"{LOOPBACK}:{self._server.add_insecure_port(f'{LOOPBACK}:0')}"
        await self._server.start()

    async def _stop(self) -> None:
        await self._server.stop(None)
        await self._channel.close(None)

    async def _answer(self, method: str, request: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        fails = method.rpartition("/")[2] in _WRITES and self._draw.random() < self._share
        seen_before = self._draw.random() < 0.5
        answer = b""
        if seen_before or not fails:
            try:
                answer = await self._channel.unary_unary(method)(request, timeout=context.time_remaining())
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "")
        if fails:
            self.failed += 1
            await context.abort(self._draw.choice(_CODES), "the test fails this write")
        return answer


class _Everything(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs alone
    """Takes every method, whose bytes it leaves as they are."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        method = handler_call_details.method

        async def answer(request: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
            answered: bytes = await self._answer(method, request, context)
            return answered

        return grpc.unary_unary_rpc_method_handler(answer)
