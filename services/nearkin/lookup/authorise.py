"""Who may call which method of the look-up service: a caller shows a token, and a file says what it may do.

The file holds no token, only the SHA-256 of each: whoever reads it cannot call. It is read again when it changes, and
one that cannot be used then changes nothing. Health is open to everybody: whoever balances load has no token.
"""

import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import grpc
import msgspec
from grpc_health.v1 import health

from nearkin.contracts.v1 import lookup_pb2 as wire
from nearkin.core.errors import Misconfigured
from nearkin.core.probe import PROBE_MARKET
from nearkin.ops.followed import Followed
from nearkin.ops.logs import fields
from nearkin.ops.metrics import Metrics

log = logging.getLogger(__name__)

#: The right to look up among the monitor's probe items, beside the right to the method.
PROBES = "probes"

#: The right to every method and to probe items.
EVERYTHING = "*"

#: How often the file is looked at, at most, in seconds.
LOOK_EVERY_S = 1.0

_SERVICE = wire.DESCRIPTOR.services_by_name["LookupService"]
_METHODS = {f"/{_SERVICE.full_name}/{method.name}": method.name for method in _SERVICE.methods}
_RIGHTS = frozenset([*_METHODS.values(), PROBES, EVERYTHING])


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of whom a token is, and what it may be used for.

    Attributes:
        name: who shows it, as logs say.
        sha256: of the token, as 64 hex digits.
        rights: methods of the service, `probes`, or `*`.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    rights: tuple[str, ...]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tokens: tuple[Token, ...]


class TokenFile:
    """The tokens of a file, as it is now.

    Args:
        path: `{"tokens": [{"name": …, "sha256": …, "rights": […]}]}`.

    Raises:
        Misconfigured: it is not there, or not as it must be; says where.
    """

    def __init__(self, path: Path) -> None:
        self._tokens = Followed("the tokens", [path], lambda: read_tokens(path), LOOK_EVERY_S)

    def find(self, shown: str) -> Token | None:
        """The token that somebody shows; None where there is none such. It takes as long whichever it is."""
        self._tokens.look()
        digest = hashlib.sha256(shown.encode(errors="surrogateescape")).hexdigest()
        found = None
        for token in self._tokens.held:
            if hmac.compare_digest(token.sha256, digest):
                found = token
        return found


def read_tokens(path: Path) -> tuple[Token, ...]:
    """The tokens of a file.

    Raises:
        Misconfigured: it is not there, or not as it must be; says where, and quotes nothing.
    """
    try:
        tokens = msgspec.json.decode(path.read_bytes(), type=_File).tokens
        for token in tokens:
            unknown = set(token.rights) - _RIGHTS
            if unknown:
                raise ValueError(f"{token.name} has rights that are none; there are {', '.join(sorted(_RIGHTS))}")
        for key in ("name", "sha256"):
            if len({getattr(token, key) for token in tokens}) < len(tokens):
                raise ValueError(f"two tokens have the same {key}")
    except OSError as error:
        problem = error.strerror or type(error).__name__
    except (msgspec.DecodeError, ValueError) as error:
        problem = str(error)
    else:
        return tokens
    raise Misconfigured(
        f"{path} cannot be used: {problem}",
        field="NEARKIN_LOOKUP_TOKENS",
        remedy="write it as docs/security.md says",
        reason="tokens",
    )


class Authorise(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in its stubs alone
    """Lets calls through that show a token with the right to them, and answers the others.

    UNAUTHENTICATED is for who shows no token that is known, PERMISSION_DENIED for who may not do this with it.

    Args:
        tokens: who may do what.
        metrics: where refused calls are counted.
    """

    def __init__(self, tokens: TokenFile, metrics: Metrics) -> None:
        self._tokens, self._metrics = tokens, metrics

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Called by gRPC for every call."""
        path = handler_call_details.method
        if path.startswith(f"/{health.SERVICE_NAME}/"):
            return await continuation(handler_call_details)
        shown = _shown(handler_call_details.invocation_metadata)
        token = self._tokens.find(shown) if shown else None
        method = _METHODS.get(path, "")
        if token is None:
            problem = "the token is not known" if shown else "there is no token"
            remedy = "send one as `authorization: Bearer TOKEN` that the service's operator has given you"
            return self._refusal(grpc.StatusCode.UNAUTHENTICATED, f"{problem}; {remedy}", method, "")
        rights = set(token.rights)
        handler = await continuation(handler_call_details)
        if EVERYTHING in rights or handler is None:
            return handler
        if method and method not in rights:
            message = f"the token of {token.name} may not call {method}; ask the service's operator for that right"
            return self._refusal(grpc.StatusCode.PERMISSION_DENIED, message, method, token.name)
        return handler if PROBES in rights or not method else self._without_probes(handler, method, token.name)

    def _without_probes(self, handler: Any, method: str, name: str) -> Any:
        async def serve(request: Any, context: Any) -> Any:
            if _names_probes(request):
                self._count(grpc.StatusCode.PERMISSION_DENIED, method, name)
                message = f"the token of {name} may not look up in the market {PROBE_MARKET}; it is the monitor's"
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, message)
            return await handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(
            serve, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
        )

    def _refusal(self, code: grpc.StatusCode, message: str, method: str, name: str) -> Any:
        async def refuse(_request: Any, context: Any) -> Any:
            self._count(code, method, name)
            await context.abort(code, message)

        return grpc.unary_unary_rpc_method_handler(refuse)

    def _count(self, code: grpc.StatusCode, method: str, name: str) -> None:
        if method:
            self._metrics.lookups.labels(method, code.name).inc()
        log.warning("a call was refused", extra=fields(code=code.name, method=method or "other", token=name or None))


def _shown(metadata: Any) -> str:
    """The token of a call's metadata; empty where there is none."""
    for key, value in metadata or ():
        if key == "authorization" and isinstance(value, str):
            scheme, _, token = value.partition(" ")
            return token.strip() if scheme.lower() == "bearer" else ""
    return ""


def _names_probes(request: Any) -> bool:
    asked = request.requests if isinstance(request, wire.FindSimilarBatchRequest) else [request]
    return any(isinstance(one, wire.FindSimilarRequest) and one.filter.market == PROBE_MARKET for one in asked)
