"""Pages of what waits for somebody to look at it, oldest first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.engine import Row

from shared.db import Session
from shared.sql import sql

START = (datetime(1970, 1, 1, tzinfo=UTC), "")

QUARANTINED = sql(
    """
    SELECT quarantine_id AS id, source, source_id, reason, item, delivery_id, received_at FROM quarantine
    WHERE (received_at, quarantine_id) > (:received_at, :id)
    ORDER BY received_at, quarantine_id LIMIT :limit
    """
)

CONFLICTS = sql(
    """
    SELECT conflict_id AS id, source, source_id, lead_id, other_lead_id, kind, received_at FROM identity_conflicts
    WHERE (received_at, conflict_id) > (:received_at, :id)
    ORDER BY received_at, conflict_id LIMIT :limit
    """
)


async def quarantined(session: Session, after: tuple[datetime, str], limit: int) -> Sequence[Row[Any]]:
    """Items in quarantine that came after (received at, id)."""
    return await session.execute(QUARANTINED, received_at=after[0], id=after[1], limit=limit)


async def conflicts(session: Session, after: tuple[datetime, str], limit: int) -> Sequence[Row[Any]]:
    """Conflicts that were found after (received at, id)."""
    return await session.execute(CONFLICTS, received_at=after[0], id=after[1], limit=limit)
