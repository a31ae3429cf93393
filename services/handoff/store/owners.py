"""How many open handoffs each owner has."""

from __future__ import annotations

from shared.db import Session
from shared.sql import sql

OPEN_COUNTS = sql(
    "SELECT owner, count(*) AS total FROM handoffs WHERE ended_at IS NULL AND owner IS NOT NULL GROUP BY owner"
)


async def open_counts(session: Session) -> dict[str, int]:
    """Open handoffs by owner; who has none is absent."""
    return {row.owner: row.total for row in await session.execute(OPEN_COUNTS)}
