"""What surrounds every request: a trace, a bounded body, a clean address, a last resort. Pure ASGI.

Starlette's `BaseHTTPMiddleware` is not used: when a client goes away it cancels the handler in the middle of a query.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Mapping

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.given import is_clean_address
from shared.telemetry import metrics, new_traceparent, trace_id, tracing
from shared.web import Problem

BODY_SECONDS = 10.0  # a sender slower than this is stuck, or means harm
TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})")

log = structlog.get_logger(__name__)


class BodyTooLarge(Problem):
    def __init__(self, limit: int) -> None:
        text = f"the body may have {limit} bytes; send it in parts"
        super().__init__(413, "/problems/body-too-large", "Body too large", text, {"Connection": "close"})


class BodyTooSlow(Problem):
    def __init__(self, seconds: float) -> None:
        text = f"the body did not arrive within {seconds:g} s"
        super().__init__(408, "/problems/body-too-slow", "Body too slow", text, {"Connection": "close"})


class AddressMalformed(Problem):
    def __init__(self) -> None:
        text = "path and query are percent-encoded UTF-8 without NUL"
        super().__init__(400, "/problems/malformed-address", "Malformed address", text)


class Traced:
    """Outermost: takes or makes a trace context, answers it, counts, and turns an unforeseen error into a bare 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = _continued(Request(scope).headers.get("traceparent"))
        answer = _Answer(send, context)
        started = time.monotonic()
        with tracing(context):
            try:
                await self._app(scope, receive, answer)
            except Exception:
                log.exception("unforeseen_error", method=scope["method"], route=_route(scope))
                if answer.status is None:
                    await _unforeseen().response()(scope, receive, answer)
        _count(scope, answer.status, time.monotonic() - started)


class BoundedBody:
    """Reads the whole body, within a size and a time, before the app sees the request.

    Bytes are counted as they come: Content-Length may lie or be absent. `limits`: smaller ones, by how a path begins.
    """

    def __init__(
        self, app: ASGIApp, *, limit: int, limits: Mapping[str, int] | None = None, seconds: float = BODY_SECONDS
    ) -> None:
        self._app = app
        self._limit = limit
        self._limits = limits or {}
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._body(scope, receive)
        except TimeoutError:
            await BodyTooSlow(self._seconds).response()(scope, receive, send)
        except BodyTooLarge as problem:
            await problem.response()(scope, receive, send)
        else:
            if body is not None:
                await self._app(scope, _replay(body, receive), send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The body; None if the client went away. Raises `BodyTooLarge`."""
        limit = self._limit_of(scope["path"])
        declared = Request(scope).headers.get("content-length", "0")
        if declared.isdecimal() and int(declared[:20]) > limit:
            raise BodyTooLarge(limit)
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise BodyTooLarge(limit)
            if not message.get("more_body", False):
                return b"".join(parts)

    def _limit_of(self, path: str) -> int:
        return min([self._limit, *(limit for begin, limit in self._limits.items() if path.startswith(begin))])


class CleanAddress:
    """Refuses a path or query that is no text, before any route or database sees what was made of it.

    It reads them as they came: decoded, wrong UTF-8 has already become U+FFFD.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_clean(scope):
            await self._app(scope, receive, send)
        else:
            await AddressMalformed().response()(scope, receive, send)


class _Answer:
    """Sends on; remembers the status and adds the trace context."""

    def __init__(self, send: Send, context: str) -> None:
        self._send = send
        self._context = context
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", []), (b"traceparent", self._context.encode())]
        await self._send(message)


def _is_clean(scope: Scope) -> bool:
    path: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogatepass")
    return is_clean_address(path) and is_clean_address(scope.get("query_string", b""))


def _replay(body: bytes, receive: Receive) -> Receive:
    is_given = False

    async def again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _continued(given: str | None) -> str:
    """The sender's trace with a span of our own, or a trace that starts here."""
    match = TRACEPARENT.fullmatch(given or "")
    return f"00-{match[1]}-{secrets.token_hex(8)}-{match[2]}" if match else new_traceparent()


def _unforeseen() -> Problem:
    text = "this is our error; it is logged under the trace id"
    return Problem(500, "/problems/internal-error", "Internal error", text, trace_id=trace_id())


def _route(scope: Scope) -> str:
    """The route's template, never the path: a path holds ids and has no end of values."""
    return getattr(scope.get("route"), "path", "none")


def _count(scope: Scope, status: int | None, seconds: float) -> None:
    metrics.http_requests.labels(scope["method"], _route(scope), str(status or "none")).inc()
    metrics.http_seconds.labels(scope["method"], _route(scope)).observe(seconds)
