"""What sales did, for leads known or not yet: touches, and deals as the CRM last told them.

Both come after the handoff in the order of law 11, and are written under their lead's lock, a deal also under that of
the lead it was told under before. Only a deal that nobody has told yet has no lead to lock: it is inserted, and whoever
comes second begins again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy.engine import Row

from services.handoff.case import Deal, Touch
from services.handoff.store.leads import RootChanged
from shared.arrays import ColumnType
from shared.db import Session
from shared.sql import Statement, sql

DealKey = tuple[str, str]  # source, opportunity_id


class Place(NamedTuple):
    """The lead that a deal was last told under, the handoff it belongs to, and the lead of that."""

    lead_id: str
    handoff_id: str | None
    handoff_lead_id: str | None

    @property
    def leads(self) -> set[str]:
        return {lead_id for lead_id in (self.lead_id, self.handoff_lead_id) if lead_id is not None}


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
INSERT_DEALS = f"""
    INSERT INTO opportunities ({DEAL_NAMES}) SELECT {DEAL_NAMES} FROM {{rows}} WHERE true
    ORDER BY source, opportunity_id ON CONFLICT (source, opportunity_id)
"""
ADD_DEALS = sql(f"{INSERT_DEALS} DO NOTHING RETURNING opportunity_id", **DEAL_COLUMNS)
SAVE_DEALS = sql(
    f"""
    {INSERT_DEALS} DO UPDATE SET {DEAL_CHANGES}
    WHERE (excluded.occurred_at, excluded.received_at) >= (opportunities.occurred_at, opportunities.received_at)
    """,
    **DEAL_COLUMNS,
)
PLACES = sql(
    """
    SELECT source, opportunity_id, opportunities.lead_id AS lead_id, opportunities.handoff_id AS handoff_id,
        handoffs.lead_id AS handoff_lead_id
    FROM opportunities LEFT JOIN handoffs ON handoffs.handoff_id = opportunities.handoff_id
    WHERE (source, opportunity_id) IN (SELECT wanted_source, wanted_id FROM {rows})
    """,
    wanted_source="text",
    wanted_id="text",
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
    ORDER BY source, opportunity_id {{for_update}}
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


async def places(session: Session, keys: Collection[DealKey]) -> dict[DealKey, Place]:
    """Where the deals that are known stand, not locked. A CRM moves deals from one contact to another."""
    rows = await session.execute(PLACES, rows=sorted(keys)) if keys else []
    return {(row.source, row.opportunity_id): Place(row.lead_id, row.handoff_id, row.handoff_lead_id) for row in rows}


async def deals(session: Session, keys: Collection[DealKey], seen: Mapping[DealKey, Place]) -> dict[DealKey, Deal]:
    """Deals by (source, id), as last told, under lock. Raises `RootChanged` unless they stand where they were seen."""
    rows = await session.execute(DEALS, rows=sorted(keys)) if keys else []
    found = {(row.source, row.opportunity_id): Deal(**row._asdict()) for row in rows}
    stood = {key: (place.lead_id, place.handoff_id) for key, place in seen.items()}
    if stood != {key: (deal.lead_id, deal.handoff_id) for key, deal in found.items()}:
        raise RootChanged("a deal was moved meanwhile")
    return found


async def deals_of_leads(session: Session, lead_ids: Collection[str]) -> dict[DealKey, Deal]:
    """The deals of these leads, under lock, as they happened."""
    found = [Deal(**row._asdict()) for row in await _of(session, DEALS_OF_LEADS, lead_ids)]
    found.sort(key=lambda deal: (deal.occurred_at, deal.key))
    return {deal.key: deal for deal in found}


async def save_deals(session: Session, changed: Collection[Deal], new: Collection[DealKey]) -> None:
    """Write deals, those of `new` for the first time. Raises `RootChanged` if somebody else told of one meanwhile."""
    ordered = sorted(changed, key=lambda deal: deal.key)
    rows = {deal.key: tuple(getattr(deal, name) for name in DEAL_COLUMNS) for deal in ordered}
    added = [row for key, row in rows.items() if key in new]
    if added and len(await session.execute(ADD_DEALS, rows=added)) < len(added):
        raise RootChanged("a deal was told under another contact meanwhile")
    if known := [row for key, row in rows.items() if key not in new]:
        await session.execute(SAVE_DEALS, rows=known)


async def forget(session: Session, lead_ids: Collection[str]) -> None:
    """Drop what people wrote about these leads."""
    rows = [(wanted,) for wanted in lead_ids]
    await session.execute(FORGET, rows=rows)
    await session.execute(FORGET_DEALS, rows=rows)


async def _of(session: Session, statement: Statement, lead_ids: Collection[str]) -> list[Row[Any]]:
    return await session.execute(statement, rows=[(wanted,) for wanted in lead_ids]) if lead_ids else []
