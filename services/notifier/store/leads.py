"""The leads that messages are about: the lock under which they are made, their MQLs, and what is forgotten of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from shared.db import Session
from shared.events import LeadMerged, MqlQualified
from shared.sql import sql

ENSURE_LEADS = sql(
    "INSERT INTO leads (lead_id) SELECT lead_id FROM {rows} WHERE true ORDER BY lead_id ON CONFLICT DO NOTHING",
    lead_id="text",
)
LOCK_LEADS = sql(
    """
    SELECT lead_id FROM leads
    WHERE lead_id IN (SELECT lead_id FROM {rows}) OR merged_into IN (SELECT lead_id FROM {rows})
    ORDER BY lead_id {for_update}
    """,
    lead_id="text",
)
ERASED = sql(
    "SELECT lead_id FROM leads WHERE erased_at IS NOT NULL AND lead_id IN (SELECT lead_id FROM {rows})", lead_id="text"
)
ROOTS = sql("SELECT lead_id, merged_into FROM leads WHERE lead_id IN (SELECT lead_id FROM {rows})", lead_id="text")
MERGE = sql(
    """
    UPDATE leads SET merged_into = rows.survivor_id FROM {rows}
    WHERE leads.lead_id = rows.absorbed_id OR leads.merged_into = rows.absorbed_id
    """,
    absorbed_id="text",
    survivor_id="text",
)
ERASE_LEADS = sql(
    """
    UPDATE leads SET erased_at = :erased_at
    WHERE erased_at IS NULL AND (lead_id IN (SELECT lead_id FROM {rows}) OR merged_into IN (SELECT lead_id FROM {rows}))
    """,
    lead_id="text",
)
ERASE_MQLS = sql(
    "DELETE FROM mqls WHERE lead_id IN (SELECT lead_id FROM leads WHERE erased_at = :erased_at)",
)
ERASE_MESSAGES = sql(
    """
    UPDATE deliveries SET message = '{}'
    WHERE message <> '{}' AND lead_id IN (SELECT lead_id FROM leads WHERE erased_at = :erased_at)
    """
)
CANCEL_ERASED = sql(
    """
    UPDATE deliveries SET state = 'stale', last_error = 'the lead was erased', next_attempt_at = NULL, claim = NULL
    WHERE state = 'pending' AND lead_id IN (SELECT lead_id FROM leads WHERE erased_at = :erased_at)
    """
)
KEEP_MQLS = sql(
    """
    INSERT INTO mqls (mql_id, lead_id, event) SELECT mql_id, lead_id, event FROM {rows} WHERE true
    ON CONFLICT DO NOTHING
    """,
    mql_id="text",
    lead_id="text",
    event="text",
)
MQLS = sql("SELECT mql_id, event FROM mqls WHERE mql_id IN (SELECT mql_id FROM {rows})", mql_id="text")


async def lock(session: Session, lead_ids: Iterable[str]) -> None:
    """Hold these leads, and those merged into them: nothing is said about a lead while it is being erased."""
    rows = [(lead_id,) for lead_id in sorted(set(lead_ids))]
    await session.execute(ENSURE_LEADS, rows)
    await session.execute(LOCK_LEADS, rows)


async def erased(session: Session, lead_ids: Iterable[str]) -> frozenset[str]:
    """Those of the leads that must not be named any more."""
    rows = [(lead_id,) for lead_id in sorted(set(lead_ids))]
    return frozenset(row.lead_id for row in await session.execute(ERASED, rows))


async def merge(session: Session, merges: Sequence[LeadMerged], *, now: datetime) -> None:
    """Remember which lead each is from now on. What was absorbed by a forgotten lead is forgotten too."""
    survivors = sorted({merged.survivor_id for merged in merges})
    found = await session.execute(ROOTS, [(lead_id,) for lead_id in survivors])
    roots = {row.lead_id: row.merged_into or row.lead_id for row in found}
    for merged in merges:
        root = roots.get(merged.survivor_id, merged.survivor_id)
        roots = {lead_id: root if kept == merged.absorbed_id else kept for lead_id, kept in roots.items()}
        roots[merged.absorbed_id] = root
    rows = [(merged.absorbed_id, roots[merged.absorbed_id]) for merged in merges]
    await session.execute(MERGE, list(dict.fromkeys(rows)))
    gone = await erased(session, roots.values())
    await erase(session, [absorbed for absorbed, root in rows if root in gone], now=now)


async def erase(session: Session, lead_ids: Sequence[str], *, now: datetime) -> None:
    """Forget everything personal about these leads, and cancel what was not sent yet."""
    if not lead_ids:
        return
    await session.execute(ERASE_LEADS, [(lead_id,) for lead_id in lead_ids], erased_at=now)
    for statement in (ERASE_MQLS, CANCEL_ERASED, ERASE_MESSAGES):
        await session.execute(statement, erased_at=now)


async def keep_mqls(session: Session, mqls: Iterable[MqlQualified]) -> None:
    rows = {mql.mql_id: (mql.mql_id, mql.lead_id, msgspec.json.encode(mql).decode()) for mql in mqls}
    await session.execute(KEEP_MQLS, list(rows.values()))


async def mqls(session: Session, mql_ids: Iterable[str]) -> Mapping[str, MqlQualified]:
    """Those of the MQLs that are known and not forgotten."""
    found = await session.execute(MQLS, [(mql_id,) for mql_id in sorted(set(mql_ids))])
    return {row.mql_id: msgspec.json.decode(row.event, type=MqlQualified) for row in found}
