"""What on-call engineers see: logs without personal data, a trace id that follows a lead, Prometheus metrics.

The metrics are declared here, in one place, at import, on a registry of their own: they are counters in memory, need
nothing to be open, and one name must mean one thing in all services. `service` is always the first label.
"""

from __future__ import annotations

import logging
import re
import secrets
import sys
from asyncio import AbstractEventLoop
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from traceback import walk_tb
from types import CodeType
from typing import Any, Literal

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from structlog.typing import EventDict, Processor, WrappedLogger

E_MAIL = re.compile(r"[^\s@]{1,64}@[^\s@<>\"',;)\]}]{1,253}")
REGISTRY = CollectorRegistry()

_traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)


def new_traceparent() -> str:
    """A W3C trace context that starts here."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def traceparent() -> str:
    """The trace context of what is being done now, or a new one."""
    return _traceparent.get() or new_traceparent()


def trace_id() -> str | None:
    """The trace of what is being done now, if it belongs to one."""
    context = _traceparent.get()
    return context.split("-")[1] if context else None


@contextmanager
def tracing(context: str) -> Iterator[None]:
    """What happens inside belongs to this trace context."""
    token = _traceparent.set(context)
    try:
        yield
    finally:
        _traceparent.reset(token)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Labels stand behind each name, in order."""

    events_published: Counter  # service
    outbox_waiting: Gauge  # service
    outbox_oldest_seconds: Gauge  # service
    outbox_parked: Gauge  # service
    records_handled: Counter  # service, topic
    records_dead: Counter  # service, topic, reason
    batches_retried: Counter  # service
    consumer_position_seconds: Gauge  # service, topic, partition
    items_received: Counter  # format, verdict
    keys_refused: Counter  # reason
    http_requests: Counter  # method, route, status
    http_seconds: Histogram  # method, route
    loop_lag_seconds: Gauge
    roles_halted: Gauge  # role
    handoffs_put_off: Counter  # service, step
    leads_put_off: Counter
    deliveries_ended: Counter  # service, channel, state
    deliveries_failed: Counter  # service, channel


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"baton_{name}", text, labels, registry=REGISTRY)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(f"baton_{name}", text, labels, registry=REGISTRY)


metrics = Metrics(
    events_published=_counter("events_published", "Outbox rows the log has taken", "service"),
    outbox_waiting=_gauge("outbox_waiting", "Outbox rows not yet published", "service"),
    outbox_oldest_seconds=_gauge("outbox_oldest_seconds", "Age of the oldest outbox row not yet published", "service"),
    outbox_parked=_gauge("outbox_parked", "Outbox rows the log refused: somebody must look", "service"),
    records_handled=_counter("records_handled", "Records whose transaction was committed", "service", "topic"),
    records_dead=_counter("records_dead", "Records sent to the dead-letter topic", "service", "topic", "reason"),
    batches_retried=_counter("batches_retried", "Transactions of a consumer run again", "service"),
    consumer_position_seconds=_gauge(
        "consumer_position_seconds",
        "Time stamp of the last record applied, seconds since 1970",
        "service",
        "topic",
        "partition",
    ),
    items_received=_counter("items_received", "Items that came through the door", "format", "verdict"),
    keys_refused=_counter("keys_refused", "Requests without a right API key", "reason"),
    http_requests=_counter("http_requests", "HTTP requests answered", "method", "route", "status"),
    http_seconds=Histogram(
        "baton_http_seconds", "Time to the answer of an HTTP request", ("method", "route"), registry=REGISTRY
    ),
    loop_lag_seconds=_gauge("loop_lag_seconds", "How late the event loop woke a sleeper"),
    roles_halted=_gauge("roles_halted", "Consumers that stopped on purpose: somebody must look", "role"),
    handoffs_put_off=_counter(
        "handoffs_put_off", "Handoffs that no clock or router could do: somebody must look", "service", "step"
    ),
    leads_put_off=_counter("leads_put_off", "Leads that a new agreement could not score: somebody must look"),
    deliveries_ended=_counter(
        "deliveries_ended", "Notifications delivered, dead (somebody must look) or stale", "service", "channel", "state"
    ),
    deliveries_failed=_counter("deliveries_failed", "Attempts that failed and are repeated", "service", "channel"),
)


def set_up_logging(*, level: str = "info", style: Literal["json", "console"] = "json") -> None:
    """One line an event on standard error, ISO UTC time, trace id; the standard library's loggers come the same way."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace_id,
    ]
    last: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        _add_frames,
        _mask,
        structlog.processors.JSONRenderer() if style == "json" else structlog.dev.ConsoleRenderer(colors=False),
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for noisy in ("aiokafka", "alembic", "aiosqlite", "httpx", "uvicorn"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def without_e_mails(text: str) -> str:
    """The text with everything that looks like an e-mail address masked."""
    return E_MAIL.sub("[e-mail]", text) if "@" in text else text


def reason_of(error: BaseException) -> str:
    """The kind of error and where it arose. Never its message: a driver's quotes values, which are a lead's data."""
    frames = _frames(error)
    return f"{type(error).__name__} at {frames[-1].partition(' in ')[0]}" if frames else type(error).__name__


def frames_of(error: BaseException) -> str:
    """The error, what caused it and what it groups: kinds and frames, outermost first, without a single message."""
    lines: list[str] = []
    waiting, seen = [error], {id(error)}
    while waiting:
        each = waiting.pop()
        lines += [type(each).__name__, *(f"  {frame}" for frame in _frames(each))]
        grouped = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        before = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
        for other in (before, *reversed(grouped)):
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                waiting.append(other)
    return "\n".join(lines)


def log_unheeded(_: AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """Log an error that nobody waited for; asyncio itself would print it in full. For `loop.set_exception_handler`."""
    error = context.get("exception")
    what = "an error nobody waited for" if error is not None else context["message"]
    structlog.get_logger(__name__).error("loop.unheeded", what=what, exc_info=error)


def _frames(error: BaseException) -> list[str]:
    return [f"{_short(frame.f_code)}:{line} in {frame.f_code.co_name}" for frame, line in walk_tb(error.__traceback__)]


def _short(code: CodeType) -> str:
    return "/".join(code.co_filename.split("/")[-2:])


def _add_frames(_: WrappedLogger, __: str, entry: EventDict) -> EventDict:
    """Instead of a traceback, which ends in the error's message (law 9)."""
    given = entry.pop("exc_info", None)
    error = given[1] if isinstance(given, tuple) else sys.exception() if given is True else given
    if isinstance(error, BaseException):
        entry["exception"] = frames_of(error)
    return entry


def _add_trace_id(_: WrappedLogger, __: str, entry: EventDict) -> EventDict:
    current = trace_id()
    if current is not None:
        entry.setdefault("trace_id", current)
    return entry


def _mask(_: WrappedLogger, __: str, entry: EventDict) -> EventDict:
    """The last line of defence: a driver's error quotes values, and so does a careless log call."""
    return {name: _masked(value) for name, value in entry.items()}


def _masked(value: object) -> object:
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return without_e_mails(value)
        case Mapping():
            return {without_e_mails(str(name)): _masked(item) for name, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_masked(item) for item in value]
        case _:
            return without_e_mails(repr(value))
