"""What `baton check` reads of the notifier: deliveries that should have moved, and rows that belong to nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy.engine import Row

from shared.checks import SHOWN, SLICE, some_key
from shared.db import Session
from shared.sql import sql

PAST_LEASE = sql(
    """
    SELECT delivery_id, next_attempt_at FROM deliveries
    WHERE state = 'pending' AND claim IS NOT NULL AND next_attempt_at < :before_at
    ORDER BY next_attempt_at LIMIT :shown
    """
)
WAITING = sql(
    """
    SELECT delivery_id, next_attempt_at FROM deliveries AS waiting
    WHERE state = 'pending' AND claim IS NULL AND next_attempt_at < :before_at AND NOT EXISTS (
        SELECT 1 FROM deliveries AS earlier
        WHERE earlier.line = waiting.line AND earlier.state = 'pending' AND earlier.seq < waiting.seq
    ) ORDER BY next_attempt_at LIMIT :shown
    """
)
LEFT_OVER = sql(
    """
    SELECT part.delivery_id AS subject, 'its lead has no row' AS detail
    FROM (SELECT delivery_id, lead_id FROM deliveries ORDER BY seq DESC LIMIT :size)
        AS part LEFT JOIN leads ON leads.lead_id = part.lead_id
    WHERE leads.lead_id IS NULL
    UNION ALL
    SELECT part.mql_id, 'its lead has no row'
    FROM (SELECT mql_id, lead_id FROM mqls WHERE mql_id >= :mql ORDER BY mql_id LIMIT :size)
        AS part LEFT JOIN leads ON leads.lead_id = part.lead_id
    WHERE leads.lead_id IS NULL
    UNION ALL
    SELECT part.lead_id, 'merged into a lead that is no root'
    FROM (SELECT lead_id, merged_into FROM leads WHERE merged_into >= '' ORDER BY merged_into LIMIT :size)
        AS part LEFT JOIN leads AS roots ON roots.lead_id = part.merged_into
    WHERE roots.lead_id IS NULL OR roots.merged_into IS NOT NULL
    """
)


async def past_lease(session: Session, before: datetime) -> list[Row[Any]]:
    """Claimed, and not recorded since the lease ended."""
    return await session.execute(PAST_LEASE, before_at=before, shown=SHOWN)


async def waiting(session: Session, before: datetime) -> list[Row[Any]]:
    """Due, in nobody's way, and not claimed."""
    return await session.execute(WAITING, before_at=before, shown=SHOWN)


async def left_over(session: Session) -> set[tuple[str, str]]:
    """(Id, what is wrong) of rows that belong to nothing: the newest deliveries, two slices of the MQLs."""
    found = set[tuple[str, str]]()
    for mql in ("", some_key("mql_")):
        found |= {(row.subject, row.detail) for row in await session.execute(LEFT_OVER, mql=mql, size=SLICE)}
    return found
