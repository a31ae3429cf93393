"""What `baton check` reads of handoff: slices of its tables, each found by an index, and what must belong to them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from sqlalchemy.engine import Row

from shared.checks import SHOWN, SLICE, some_key
from shared.db import Session
from shared.sql import sql

SAMPLE: Final = 1_000  # handoffs in each of three slices, read with their clocks and histories

SAMPLED = sql(
    """
    SELECT handoff_id FROM (
        SELECT handoff_id FROM handoffs ORDER BY opened_at DESC, handoff_id DESC LIMIT :size
    ) AS newest
    UNION SELECT handoff_id FROM (
        SELECT handoff_id FROM handoffs WHERE wake_at IS NOT NULL ORDER BY wake_at LIMIT :size
    ) AS next_due
    UNION SELECT handoff_id FROM (
        SELECT handoff_id FROM handoffs WHERE handoff_id >= :start ORDER BY handoff_id LIMIT :size
    ) AS others
    """
)
LINES = sql(
    """
    SELECT handoff_id, version, from_state, to_state, type FROM handoff_history
    WHERE handoff_id IN (SELECT wanted FROM {rows}) ORDER BY handoff_id, version
    """,
    wanted="text",
)
OVERDUE = sql(
    "SELECT clock_id, due_at FROM clocks WHERE state = 'open' AND due_at < :before_at ORDER BY due_at LIMIT :shown"
)
UNROUTED = sql(
    "SELECT handoff_id, route_at FROM handoffs WHERE route_at < :before_at ORDER BY route_at, handoff_id LIMIT :shown"
)
LEFT_OVER = sql(
    """
    SELECT part.clock_id AS subject, 'this clock has no handoff' AS detail
    FROM (SELECT clock_id, handoff_id FROM clocks WHERE clock_id >= :clock ORDER BY clock_id LIMIT :size)
        AS part LEFT JOIN handoffs ON handoffs.handoff_id = part.handoff_id
    WHERE handoffs.handoff_id IS NULL
    UNION ALL
    SELECT part.handoff_id, 'this history has no handoff'
    FROM (SELECT handoff_id FROM handoff_history WHERE handoff_id >= :handoff ORDER BY handoff_id LIMIT :size)
        AS part LEFT JOIN handoffs ON handoffs.handoff_id = part.handoff_id
    WHERE handoffs.handoff_id IS NULL
    UNION ALL
    SELECT part.handoff_id, 'its lead has no row, or was absorbed'
    FROM (SELECT handoff_id, lead_id FROM handoffs WHERE handoff_id >= :handoff ORDER BY handoff_id LIMIT :size)
        AS part LEFT JOIN leads ON leads.lead_id = part.lead_id
    WHERE leads.lead_id IS NULL OR leads.merged_into IS NOT NULL
    UNION ALL
    SELECT part.touch_id, 'its lead has no row, or was absorbed'
    FROM (SELECT touch_id, lead_id FROM touches WHERE touch_id >= :touch ORDER BY touch_id LIMIT :size)
        AS part LEFT JOIN leads ON leads.lead_id = part.lead_id
    WHERE leads.lead_id IS NULL OR leads.merged_into IS NOT NULL
    UNION ALL
    SELECT part.opportunity_id, 'its lead has no row, or was absorbed'
    FROM (SELECT opportunity_id, lead_id FROM opportunities WHERE lead_id >= :lead ORDER BY lead_id LIMIT :size)
        AS part LEFT JOIN leads ON leads.lead_id = part.lead_id
    WHERE leads.lead_id IS NULL OR leads.merged_into IS NOT NULL
    UNION ALL
    SELECT part.opportunity_id, 'linked to a handoff that is not there'
    FROM (SELECT opportunity_id, handoff_id FROM opportunities WHERE lead_id >= :lead ORDER BY lead_id LIMIT :size)
        AS part LEFT JOIN handoffs ON handoffs.handoff_id = part.handoff_id
    WHERE part.handoff_id IS NOT NULL AND handoffs.handoff_id IS NULL
    UNION ALL
    SELECT part.lead_id, 'merged into a lead that is no root'
    FROM (SELECT lead_id, merged_into FROM leads WHERE merged_into >= :lead ORDER BY merged_into LIMIT :size)
        AS part LEFT JOIN leads AS roots ON roots.lead_id = part.merged_into
    WHERE roots.lead_id IS NULL OR roots.merged_into IS NOT NULL
    """
)
SOME_LEAD = sql("SELECT lead_id FROM handoffs WHERE handoff_id >= :start ORDER BY handoff_id LIMIT 1")


async def sample(session: Session) -> list[str]:
    """The newest handoffs, those whose clocks are due next, and as many from a random one on."""
    rows = await session.execute(SAMPLED, start=some_key("handoff_"), size=SAMPLE)
    return [row.handoff_id for row in rows]


async def histories(session: Session, handoff_ids: Iterable[str]) -> dict[str, list[Row[Any]]]:
    """The lines of each handoff's history, by version."""
    found: dict[str, list[Row[Any]]] = {}
    for row in await session.execute(LINES, [(handoff_id,) for handoff_id in handoff_ids]):
        found.setdefault(row.handoff_id, []).append(row)
    return found


async def overdue(session: Session, before: datetime) -> list[Row[Any]]:
    """Open clocks that were due before. Reads all that are open."""
    return await session.execute(OVERDUE, before_at=before, shown=SHOWN)


async def unrouted(session: Session, before: datetime) -> list[Row[Any]]:
    """Handoffs that the router should have looked at before."""
    return await session.execute(UNROUTED, before_at=before, shown=SHOWN)


async def left_over(session: Session) -> set[tuple[str, str]]:
    """(Id, what is wrong) of rows that belong to nothing: two slices of each table, by lead from a random handoff's."""
    handoff = some_key("handoff_")
    some = await session.first(SOME_LEAD, start=handoff)
    found = set[tuple[str, str]]()
    for start, lead in (("", ""), (handoff, some.lead_id if some else "")):
        clock, touch = (some_key("clock_"), some_key("touch_")) if start else ("", "")
        rows = await session.execute(LEFT_OVER, clock=clock, handoff=start, touch=touch, lead=lead, size=SLICE)
        found |= {(row.subject, row.detail) for row in rows}
    return found
