"""The API key of the embedded index, asked for as a Qdrant server asks: in the metadata of every call."""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc_health.v1 import health

#: Whether it serves is told to everybody, as by a Qdrant server.
_OPEN = (f"/{health.SERVICE_NAME}/", "/qdrant.Qdrant/HealthCheck")


class RequireKey(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in its stubs alone
    """Answers calls that do not bring the key; whether the process serves is told to everybody.

    Args:
        key: gives the key as it is now; nobody needs one while it is empty.
    """

    def __init__(self, key: Callable[[], str]) -> None:
        self._key = key

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Called by gRPC for every call."""
        key = self._key()
        if not key or handler_call_details.method.startswith(_OPEN):
            return await continuation(handler_call_details)
        shown = dict(handler_call_details.invocation_metadata or ()).get("api-key", "")
        if isinstance(shown, str) and hmac.compare_digest(shown.encode(), key.encode()):
            return await continuation(handler_call_details)
        return grpc.unary_unary_rpc_method_handler(_refuse)


async def _refuse(_request: Any, context: Any) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "Must provide an API key or an Authorization bearer token")
