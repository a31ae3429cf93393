"""Handoff's own rows of leads: they stand before everything that is said of a lead, and carry its alias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from shared.db import DatabaseUnavailable, Session
from shared.sql import sql


class RootChanged(DatabaseUnavailable):
    """What had to be known to lock in order was another once it was locked: the transaction is run again."""


class Mention(NamedTuple):
    """Why a lead is locked: sales did something for it at `told_at`, so many MQLs came for it, it is absorbed."""

    told_at: datetime | None = None
    mqls: int = 0
    is_absorbed: bool = False


class Lead(NamedTuple):
    """A lead's row under lock. `told_at`: when sales last did something for it; `mqls`: how many came so far."""

    lead_id: str
    merged_into: str | None
    told_at: datetime | None
    mqls: int


# Creates, locks and reads in one statement, in order, each lead and its root as just read; of one that is being
# absorbed, also those it absorbed before.
LOCK = sql(
    """
    INSERT INTO leads (lead_id, told_at, mqls)
    SELECT lead_id, max(told_at), CAST(sum(mqls) AS bigint) FROM (
        SELECT lead_id, told_at, mqls FROM {rows}
        UNION ALL
        SELECT leads.merged_into, rows.told_at, rows.mqls FROM {rows} JOIN leads ON leads.lead_id = rows.lead_id
        WHERE leads.merged_into IS NOT NULL
        UNION ALL
        SELECT leads.lead_id, NULL, 0 FROM {rows} JOIN leads ON leads.merged_into = rows.lead_id
        WHERE rows.is_absorbed
    ) AS mentioned GROUP BY lead_id ORDER BY lead_id
    ON CONFLICT (lead_id) DO UPDATE SET mqls = leads.mqls + excluded.mqls, told_at = CASE
        WHEN excluded.told_at IS NULL OR leads.told_at >= excluded.told_at THEN leads.told_at ELSE excluded.told_at END
    RETURNING lead_id, merged_into, told_at, mqls
    """,
    lead_id="text",
    told_at="timestamptz",
    mqls="bigint",
    is_absorbed="boolean",
)
ROOT = sql("SELECT merged_into FROM leads WHERE lead_id = :lead_id AND merged_into IS NOT NULL")
MERGE = sql(
    """
    UPDATE leads SET merged_into = rows.survivor_id FROM {rows}
    WHERE leads.lead_id = rows.absorbed_id OR leads.merged_into = rows.absorbed_id
    """,
    absorbed_id="text",
    survivor_id="text",
)
ERASE = sql(
    "UPDATE leads SET erased_at = rows.erased_at FROM {rows} WHERE leads.lead_id = rows.lead_id",
    lead_id="text",
    erased_at="timestamptz",
)
INHERIT = sql(
    """
    UPDATE leads SET
        told_at = (SELECT max(one.told_at) FROM leads AS one
            WHERE one.lead_id = leads.lead_id OR one.merged_into = leads.lead_id),
        mqls = (SELECT CAST(sum(one.mqls) AS bigint) FROM leads AS one
            WHERE one.lead_id = leads.lead_id OR one.merged_into = leads.lead_id)
    WHERE lead_id IN (SELECT survivor_id FROM {rows})
    """,
    survivor_id="text",
)


async def lock(session: Session, mentioned: Mapping[str, Mention]) -> dict[str, Lead]:
    """The rows of these leads and their roots, made where missing, under lock. Raises `RootChanged`."""
    if not mentioned:
        return {}
    rows = [(lead_id, *mention) for lead_id, mention in mentioned.items()]
    locked = {
        row.lead_id: Lead(row.lead_id, row.merged_into, row.told_at, row.mqls)
        for row in await session.execute(LOCK, rows=rows)
    }
    for lead in locked.values():
        if lead.merged_into is not None and lead.merged_into not in locked:
            raise RootChanged(f"{lead.lead_id} was absorbed meanwhile")
    return locked


def without_handoffs(locked: Mapping[str, Lead], mentioned: Mapping[str, Mention]) -> set[str]:
    """Leads whose MQLs are all of this batch: nothing is to be read for them."""
    return {
        lead.lead_id
        for lead in locked.values()
        if lead.merged_into is None and lead.mqls == mentioned.get(lead.lead_id, Mention()).mqls
    }


async def merge(session: Session, aliases: Sequence[tuple[str, str]]) -> None:
    """Each absorbed lead, and whatever it had absorbed, is its survivor from now on."""
    await session.execute(MERGE, rows=aliases)
    await session.execute(INHERIT, rows=[(survivor_id,) for _, survivor_id in aliases])


async def erase(session: Session, erased: Sequence[tuple[str, datetime]]) -> None:
    await session.execute(ERASE, rows=erased)


def roots_of(locked: Mapping[str, Lead]) -> dict[str, str]:
    """The root of each lead."""
    return {lead.lead_id: lead.merged_into or lead.lead_id for lead in locked.values()}


def told(locked: Mapping[str, Lead]) -> list[str]:
    """Those for which sales has done something."""
    return sorted(lead.lead_id for lead in locked.values() if lead.told_at is not None)


async def root_of(session: Session, lead_id: str) -> str:
    """The lead that this one is now, not locked; itself, where it was never absorbed."""
    row = await session.first(ROOT, lead_id=lead_id)
    return str(row.merged_into) if row else lead_id
