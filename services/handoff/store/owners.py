"""How many open handoffs each owner has."""

from __future__ import annotations

from services.handoff.lifecycle import OPEN
from shared.db import Session
from shared.sql import sql

OPEN_COUNTS = sql(
    """
    SELECT owner, count(*) AS total FROM handoffs
    WHERE owner IS NOT NULL AND state IN (SELECT wanted FROM {rows}) GROUP BY owner
    """,
    wanted="text",
)


async def open_counts(session: Session) -> dict[str, int]:
    """Open handoffs by owner; who has none is absent."""
    return {row.owner: row.total for row in await session.execute(OPEN_COUNTS, rows=[(state,) for state in OPEN])}
