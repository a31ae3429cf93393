"""Deliveries as rows: written while events are read, shown by the API, judged by `baton check`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Row

from services.notifier.compose import Message
from shared.db import Session
from shared.events import NurtureEvent
from shared.sql import sql

NEWEST_NURTURE = sql(
    """
    SELECT handoff_id, max(version) AS version FROM deliveries
    WHERE channel = 'automation' AND handoff_id IN (SELECT handoff_id FROM {rows}) GROUP BY handoff_id
    """,
    handoff_id="text",
)
ADD = sql(
    """
    INSERT INTO deliveries (delivery_id, event_id, event_type, receiver, channel, lead_id, handoff_id, version, line,
        message, traceparent, state, created_at, stale_at, next_attempt_at, last_error)
    SELECT delivery_id, event_id, event_type, receiver, channel, lead_id, handoff_id, version, line,
        message, traceparent, state, created_at, stale_at, next_attempt_at, last_error
    FROM {rows} WHERE true ORDER BY row_number
    ON CONFLICT DO NOTHING
    RETURNING delivery_id, channel, state
    """,
    delivery_id="text",
    event_id="text",
    event_type="text",
    receiver="text",
    channel="text",
    lead_id="text",
    handoff_id="text",
    version="bigint",
    line="text",
    message="text",
    traceparent="text",
    state="text",
    created_at="timestamptz",
    stale_at="timestamptz",
    next_attempt_at="timestamptz",
    last_error="text",
)
SHOWN = """
    SELECT seq, delivery_id, event_id, event_type, receiver, channel, state, attempts, next_attempt_at, delivered_at,
        last_error, lead_id, handoff_id, created_at
    FROM deliveries WHERE seq < :before_seq {} ORDER BY seq DESC LIMIT :size
"""
OF_STATE = "AND state = :state"
OF_LEAD = """
    AND lead_id IN (SELECT CAST(:lead AS text) UNION ALL SELECT lead_id FROM leads WHERE merged_into = :lead)
"""
# One statement per choice of filters: a filter that may be absent (`:x IS NULL OR ...`) keeps a plan off its index.
PAGES = {
    (): sql(SHOWN.format("")),
    ("state",): sql(SHOWN.format(OF_STATE)),
    ("lead",): sql(SHOWN.format(OF_LEAD)),
    ("state", "lead"): sql(SHOWN.format(OF_STATE + OF_LEAD)),
}


@dataclass(frozen=True, slots=True)
class Cause:
    """The event that a delivery is about."""

    event_id: str
    event_type: str
    lead_id: str
    handoff_id: str
    version: int
    traceparent: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Added:
    """A delivery that was not there before."""

    delivery_id: str
    channel: str
    is_dead: bool


async def newest_nurture(session: Session, events: Iterable[NurtureEvent]) -> dict[str, int]:
    """The newest version by handoff that marketing's automation has been told of, or is about to be."""
    rows = [(handoff_id,) for handoff_id in sorted({event.handoff_id for event in events})]
    if not rows:
        return {}
    return {row.handoff_id: row.version for row in await session.execute(NEWEST_NURTURE, rows)}


async def add(session: Session, made: Sequence[tuple[Cause, Message]], *, now: datetime) -> list[Added]:
    """A row each, unless it is there already; to be sent at once."""
    rows = [_row(cause, message, now) for cause, message in made]
    found = await session.execute(ADD, rows)
    return [Added(row.delivery_id, row.channel, row.state == "dead") for row in found]


async def page(session: Session, *, before_seq: int, state: str | None, lead: str | None, size: int) -> list[Row[Any]]:
    """Deliveries from the newest, older than `before_seq`; of a lead: also those about the leads it absorbed."""
    filters: dict[str, Any] = {name: value for name, value in (("state", state), ("lead", lead)) if value is not None}
    return await session.execute(PAGES[tuple(filters)], before_seq=before_seq, size=size, **filters)


def delivery_id(event_id: str, receiver: str, channel: str) -> str:
    """The same for the same three, so that a receiver knows a repeat even after a restored database. Without a dot."""
    digest = hashlib.sha256(f"{event_id}|{receiver}|{channel}".encode()).hexdigest()
    return f"dlv_{digest[:32]}"


def _row(cause: Cause, message: Message, now: datetime) -> tuple[object, ...]:
    is_dead = message.problem is not None
    return (
        delivery_id(cause.event_id, message.receiver, message.channel),
        cause.event_id,
        cause.event_type,
        message.receiver,
        message.channel.value,
        cause.lead_id,
        cause.handoff_id,
        cause.version,
        message.line,
        json.dumps(message.content),
        cause.traceparent,
        "dead" if is_dead else "pending",
        now,
        cause.time + message.stale_after,
        None if is_dead else now,
        message.problem,
    )
