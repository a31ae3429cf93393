"""What on-call engineers see: logs without personal data, a trace id that follows a lead, Prometheus metrics."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)


def new_traceparent() -> str:
    """A W3C trace context that starts here."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def traceparent() -> str:
    """The trace context of what is being done now, or a new one."""
    return _traceparent.get() or new_traceparent()


@contextmanager
def tracing(context: str) -> Iterator[None]:
    """What happens inside belongs to this trace context."""
    token = _traceparent.set(context)
    try:
        yield
    finally:
        _traceparent.reset(token)
