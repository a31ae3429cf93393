"""What sales did, for leads known or not yet: touches, and deals as the CRM last told them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy.engine import Row

from services.handoff.case import Deal, Touch
from shared.db import Session
from shared.sql import ColumnType, Statement, sql

TOUCH_COLUMNS: dict[str, ColumnType] = {
    "touch_id": "text",
    "lead_id": "text",
    "came_in_under": "text",
    "kind": "text",
    "performer": "text",
    "source": "text",
    "source_id": "text",
    "occurred_at": "timestamptz",
    "received_at": "timestamptz",
    "outcome": "text",
}
DEAL_COLUMNS: dict[str, ColumnType] = {
    "source": "text",
    "opportunity_id": "text",
    "lead_id": "text",
    "came_in_under": "text",
    "handoff_id": "text",
    "stage": "text",
    "name": "text",
    "amount": "text",
    "currency": "text",
    "owner": "text",
    "product": "text",
    "motion": "text",
    "reason": "text",
    "occurred_at": "timestamptz",
    "received_at": "timestamptz",
}
TOUCH_NAMES = ", ".join(TOUCH_COLUMNS)
DEAL_NAMES = ", ".join(DEAL_COLUMNS)
DEAL_CHANGES = ", ".join(
    f"{name} = excluded.{name}" for name in DEAL_COLUMNS if name not in ("source", "opportunity_id")
)

KEEP = sql(
    f"""
    INSERT INTO touches ({TOUCH_NAMES}) SELECT {TOUCH_NAMES} FROM {{rows}} WHERE true
    ON CONFLICT (touch_id) DO NOTHING RETURNING touch_id
    """,
    **TOUCH_COLUMNS,
)
OF_LEADS = sql(
    f"SELECT {TOUCH_NAMES} FROM touches WHERE lead_id IN (SELECT wanted FROM {{rows}}) ORDER BY occurred_at, touch_id",
    wanted="text",
)
MOVE = sql(
    "UPDATE touches SET lead_id = rows.survivor_id FROM {rows} WHERE touches.lead_id = rows.absorbed_id",
    absorbed_id="text",
    survivor_id="text",
)
SAVE_DEALS = sql(
    f"""
    INSERT INTO opportunities ({DEAL_NAMES}) SELECT {DEAL_NAMES} FROM {{rows}} WHERE true
    ON CONFLICT (source, opportunity_id) DO UPDATE SET {DEAL_CHANGES}
    """,
    **DEAL_COLUMNS,
)
DEALS = sql(
    f"""
    SELECT {DEAL_NAMES} FROM opportunities
    WHERE (source, opportunity_id) IN (SELECT wanted_source, wanted_id FROM {{rows}})
    ORDER BY source, opportunity_id {{for_update}}
    """,
    wanted_source="text",
    wanted_id="text",
)
DEALS_OF_LEADS = sql(
    f"""
    SELECT {DEAL_NAMES} FROM opportunities WHERE lead_id IN (SELECT wanted FROM {{rows}})
    ORDER BY occurred_at, source, opportunity_id
    """,
    wanted="text",
)
MOVE_DEALS = sql(
    "UPDATE opportunities SET lead_id = rows.survivor_id FROM {rows} WHERE opportunities.lead_id = rows.absorbed_id",
    absorbed_id="text",
    survivor_id="text",
)
FORGET = sql(
    "UPDATE touches SET outcome = NULL WHERE lead_id IN (SELECT wanted FROM {rows})",
    wanted="text",
)
FORGET_DEALS = sql("UPDATE opportunities SET name = NULL WHERE lead_id IN (SELECT wanted FROM {rows})", wanted="text")


async def keep(session: Session, touches: Iterable[Touch]) -> set[str]:
    """Store touches; the ids of those that are new."""
    rows = [tuple(getattr(touch, name) for name in TOUCH_COLUMNS) for touch in touches]
    return {row.touch_id for row in await session.execute(KEEP, rows=rows)} if rows else set()


async def of_leads(session: Session, lead_ids: Collection[str]) -> dict[str, list[Touch]]:
    """The touches of each lead, as they happened."""
    found: dict[str, list[Touch]] = {}
    for row in await _of(session, OF_LEADS, lead_ids):
        found.setdefault(row.lead_id, []).append(Touch(**row._asdict()))
    return found


async def move(session: Session, aliases: Sequence[tuple[str, str]]) -> None:
    """Touches and deals of each absorbed lead are its survivor's."""
    await session.execute(MOVE, rows=aliases)
    await session.execute(MOVE_DEALS, rows=aliases)


async def deals(session: Session, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Deal]:
    """Deals by (source, id), as last told. Their leads need not be those we think of: a CRM moves deals."""
    rows = await session.execute(DEALS, rows=sorted(keys)) if keys else []
    return {(row.source, row.opportunity_id): Deal(**row._asdict()) for row in rows}


async def deals_of_leads(session: Session, lead_ids: Collection[str]) -> dict[str, list[Deal]]:
    found: dict[str, list[Deal]] = {}
    for row in await _of(session, DEALS_OF_LEADS, lead_ids):
        found.setdefault(row.lead_id, []).append(Deal(**row._asdict()))
    return found


async def save_deals(session: Session, changed: Collection[Deal]) -> None:
    if changed:
        await session.execute(
            SAVE_DEALS, rows=[tuple(getattr(deal, name) for name in DEAL_COLUMNS) for deal in changed]
        )


async def forget(session: Session, lead_ids: Collection[str]) -> None:
    """Drop what people wrote about these leads."""
    rows = [(wanted,) for wanted in lead_ids]
    await session.execute(FORGET, rows=rows)
    await session.execute(FORGET_DEALS, rows=rows)


async def _of(session: Session, statement: Statement, lead_ids: Collection[str]) -> list[Row[Any]]:
    return await session.execute(statement, rows=[(wanted,) for wanted in lead_ids]) if lead_ids else []
