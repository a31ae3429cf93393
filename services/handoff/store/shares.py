"""Fair shares: how far each rep is ahead of or behind what a pool's weights give him."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from operator import itemgetter

from services.handoff.route import Member, Share
from shared.db import Session
from shared.sql import sql

# Creates, locks and reads in one statement, pools and their reps in order.
LOCK = sql(
    """
    INSERT INTO shares (pool, rep, debt, assigned) SELECT pool, rep, 0, 0 FROM {rows} WHERE true ORDER BY pool, rep
    ON CONFLICT (pool, rep) DO UPDATE SET debt = shares.debt
    RETURNING pool, rep, debt, assigned
    """,
    pool="text",
    rep="text",
)
SAVE = sql(
    """
    UPDATE shares SET debt = rows.debt_now, assigned = rows.assigned_now FROM {rows}
    WHERE shares.pool = rows.of_pool AND shares.rep = rows.of_rep
    """,
    of_pool="text",
    of_rep="text",
    debt_now="float8",
    assigned_now="bigint",
)


async def lock(session: Session, members: Collection[Member]) -> dict[Member, Share]:
    """The shares of these members, under lock: nobody else assigns from their pools until the end."""
    rows = await session.execute(LOCK, rows=sorted(members)) if members else []
    return {(row.pool, row.rep): Share(row.debt, row.assigned) for row in rows}


async def save(session: Session, changed: Mapping[Member, Share]) -> None:
    if changed:
        rows = [(*member, share.debt, share.assigned) for member, share in sorted(changed.items(), key=itemgetter(0))]
        await session.execute(SAVE, rows=rows)
