"""The deliveries as a queue: claimed with a lease, recorded with the claim that was given. Statements of `deliver`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.notifier.channels import Item
from services.notifier.compose import Channel
from shared.db import Session
from shared.sql import sql

NEXT = sql(
    "SELECT min(next_attempt_at) AS next_at, clock_timestamp() AS now_at FROM deliveries "
    "WHERE state = 'pending' AND channel = :channel"
)
# Too late, or overtaken: once marketing's automation may have heard a newer word, an older one is not repeated.
STALE = sql(
    """
    UPDATE deliveries SET state = 'stale', next_attempt_at = NULL, claim = NULL, last_error = CASE
        WHEN stale_at <= clock_timestamp() THEN coalesce('too late; before: ' || last_error, 'too late')
        ELSE coalesce('overtaken; before: ' || last_error, 'overtaken') END
    WHERE seq IN (
        SELECT seq FROM deliveries AS late
        WHERE state = 'pending' AND channel = :channel AND next_attempt_at <= clock_timestamp() AND (
            stale_at <= clock_timestamp()
            OR (line IS NOT NULL AND attempts > 0 AND EXISTS (
                SELECT 1 FROM deliveries AS newer
                WHERE newer.handoff_id = late.handoff_id AND newer.channel = late.channel
                    AND newer.version > late.version
            ))
        ) ORDER BY seq LIMIT :size {skip_locked}
    )
    RETURNING delivery_id
    """
)
DUE = sql(
    """
    SELECT seq FROM deliveries AS due
    WHERE state = 'pending' AND channel = :channel AND next_attempt_at <= clock_timestamp() AND NOT EXISTS (
        SELECT 1 FROM deliveries AS earlier
        WHERE earlier.line = due.line AND earlier.channel = due.channel
            AND earlier.state = 'pending' AND earlier.seq < due.seq
    ) ORDER BY next_attempt_at, seq LIMIT :size {skip_locked}
    """
)
CLAIM = sql(
    """
    UPDATE deliveries SET claim = :claim, next_attempt_at = :lease_ends_at, attempts = attempts + 1
    FROM {rows} WHERE deliveries.seq = rows.claimed
    RETURNING delivery_id, handoff_id, message, created_at, traceparent, attempts, event_type
    """,
    claimed="bigint",
)
ENDED = sql(
    """
    UPDATE deliveries SET state = :state, last_error = :error, delivered_at = :delivered_at,
        next_attempt_at = NULL, claim = NULL
    WHERE delivery_id = :delivery_id AND claim = :claim RETURNING delivery_id
    """
)
AGAIN = sql(
    """
    UPDATE deliveries SET last_error = :error, next_attempt_at = :next_attempt_at, claim = NULL
    WHERE delivery_id = :delivery_id AND claim = :claim RETURNING delivery_id
    """
)


@dataclass(frozen=True, slots=True)
class Claimed:
    """One delivery, ours until its lease ends. `attempts` counts this one."""

    item: Item
    claim: str
    attempts: int
    event_type: str


async def seconds_to_next(session: Session, channel: Channel) -> float | None:
    """How long until something of this channel is due, 0 if it is; None if nothing waits."""
    row = await session.first(NEXT, channel=channel.value)
    if row is None or row.next_at is None:
        return None
    wait: timedelta = row.next_at - row.now_at
    return max(0.0, wait.total_seconds())


async def give_up_late(session: Session, channel: Channel, *, size: int) -> list[str]:
    """The ids of what nobody wants to hear of any more; it is stale from now on."""
    return [row.delivery_id for row in await session.execute(STALE, channel=channel.value, size=size)]


async def claim(session: Session, channel: Channel, *, token: str, size: int, lease: timedelta) -> list[Claimed]:
    """Deliveries that are due and nobody else has in hand. Those of one line come one at a time."""
    due = [(row.seq,) for row in await session.execute(DUE, channel=channel.value, size=size)]
    if not due:
        return []
    lease_ends_at = await session.now() + lease
    found = await session.execute(CLAIM, due, claim=token, lease_ends_at=lease_ends_at)
    return [
        Claimed(
            item=Item(row.delivery_id, row.handoff_id, json.loads(row.message), row.created_at, row.traceparent),
            claim=token,
            attempts=row.attempts,
            event_type=row.event_type,
        )
        for row in found
    ]


async def record_delivered(session: Session, claimed: Claimed) -> bool:
    """Whether it still was ours: another claim, or an erasure, may have taken it."""
    return await _end(session, claimed, "delivered", None, await session.now())


async def record_dead(session: Session, claimed: Claimed, error: str) -> bool:
    return await _end(session, claimed, "dead", error, None)


async def record_failure(session: Session, claimed: Claimed, error: str, *, wait: timedelta) -> bool:
    """To be tried again after `wait`."""
    next_attempt_at = await session.now() + wait
    found = await session.execute(
        AGAIN,
        error=error,
        next_attempt_at=next_attempt_at,
        delivery_id=claimed.item.delivery_id,
        claim=claimed.claim,
    )
    return bool(found)


async def _end(
    session: Session, claimed: Claimed, state: str, error: str | None, delivered_at: datetime | None
) -> bool:
    found: Sequence[object] = await session.execute(
        ENDED,
        state=state,
        error=error,
        delivered_at=delivered_at,
        delivery_id=claimed.item.delivery_id,
        claim=claimed.claim,
    )
    return bool(found)
