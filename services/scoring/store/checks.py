"""What `baton check` reads of scoring: slices of its tables, each found by an index, and what must belong to them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.engine import Row

from services.scoring.identity import KNOWN, PROVISIONAL
from services.scoring.store.locks import Locked, column
from shared.checks import SLICE, some_key, some_moment
from shared.db import Session
from shared.sql import sql

SAMPLE: Final = 40  # leads in each of five slices: their whole histories are folded
LAG: Final = timedelta(minutes=10)  # between a commit and its publication, on a day that is not quite bad
DAY: Final = timedelta(days=1)

NEWEST_ACCEPTED = sql(
    """
    SELECT source, source_id, delivery_id, received_at FROM inbox
    WHERE received_at >= :since_at AND received_at < :before_at ORDER BY received_at DESC LIMIT :size
    """
)
ACCEPTED_SINCE = sql(
    """
    SELECT source, source_id, delivery_id, received_at FROM inbox
    WHERE received_at >= :since_at AND received_at < :before_at ORDER BY received_at LIMIT :size
    """
)
RECORDED = sql(
    "SELECT activity_id FROM activities WHERE activity_id IN (SELECT wanted FROM {rows})",
    wanted="text",
)
TOLD = sql(
    """
    SELECT event_id FROM outbox
    WHERE published_at >= :since_at AND published_at < :before_at AND event_id IN (SELECT wanted FROM {rows})
    UNION
    SELECT event_id FROM outbox
    WHERE published_at IS NULL AND parked_at IS NULL AND event_id IN (SELECT wanted FROM {rows})
    UNION
    SELECT event_id FROM outbox WHERE parked_at IS NOT NULL AND event_id IN (SELECT wanted FROM {rows})
    """,
    wanted="text",
)
STORED_AND_DEAD = sql(
    """
    SELECT dead.event_id FROM outbox AS dead
    WHERE dead.topic = 'baton.scoring.dlq.v1' AND dead.event_id IN (SELECT wanted FROM {rows}) AND NOT EXISTS (
        SELECT 1 FROM outbox AS again
        WHERE again.event_id = dead.event_id AND again.topic = 'baton.activities.v1' AND again.id > dead.id
    )
    """,
    wanted="text",
)
OLDEST_LEAD = sql("SELECT created_at FROM leads WHERE lead_id >= :prefix ORDER BY lead_id LIMIT 1")
# Ids sort as their leads came, provisional ones (anon_) before known ones (lead_): `lead_` and `m` end a kind.
SAMPLED = sql(
    """
    SELECT lead_id FROM (SELECT lead_id FROM leads WHERE lead_id < 'm' ORDER BY lead_id DESC LIMIT :size) AS known
    UNION SELECT lead_id FROM (
        SELECT lead_id FROM leads WHERE lead_id < 'lead_' ORDER BY lead_id DESC LIMIT :size
    ) AS provisional
    UNION SELECT lead_id FROM (
        SELECT lead_id FROM leads WHERE lead_id >= :known ORDER BY lead_id LIMIT :size
    ) AS known_once
    UNION SELECT lead_id FROM (
        SELECT lead_id FROM leads WHERE lead_id >= :provisional ORDER BY lead_id LIMIT :size
    ) AS provisional_once
    UNION SELECT lead_id FROM (SELECT lead_id FROM mqls WHERE mql_id >= :mql ORDER BY mql_id LIMIT :size) AS qualified
    """
)
SCORED = sql(
    """
    SELECT lead_id, merged_into, agreement_version, last_received_at, facts FROM leads
    WHERE lead_id IN (SELECT lead_id FROM {rows}) AND merged_into IS NULL AND agreement_version > 0
    """,
    lead_id="text",
)
JOINED = sql("SELECT merged_into FROM leads WHERE merged_into IN (SELECT lead_id FROM {rows})", lead_id="text")
MQLS_OF = sql(
    """
    SELECT mql_id, made_for, lead_id, product, motion, cycle, scorecard, agreement_version, crossed_by, qualified_at,
        ended_at, gave_way_at, created_at
    FROM mqls WHERE lead_id IN (SELECT lead_id FROM {rows}) ORDER BY lead_id, cycle, mql_id
    """,
    lead_id="text",
)
NOT_AT_A_ROOT = sql(
    """
    SELECT part.activity_id AS subject, 'activity of a lead that is no root' AS detail
    FROM (SELECT activity_id, lead_id FROM activities WHERE activity_id >= :activity ORDER BY activity_id LIMIT :size)
        AS part LEFT JOIN leads ON leads.lead_id = part.lead_id
    WHERE leads.lead_id IS NULL OR leads.merged_into IS NOT NULL
    UNION ALL
    SELECT part.mql_id, 'MQL of a lead that is no root'
    FROM (SELECT mql_id, lead_id FROM mqls WHERE mql_id >= :mql ORDER BY mql_id LIMIT :size)
        AS part LEFT JOIN leads ON leads.lead_id = part.lead_id
    WHERE leads.lead_id IS NULL OR leads.merged_into IS NOT NULL
    UNION ALL
    SELECT part.lead_id, 'score of a lead that is no root'
    FROM (SELECT lead_id FROM lead_scores WHERE lead_id >= :lead ORDER BY lead_id LIMIT :size)
        AS part LEFT JOIN leads ON leads.lead_id = part.lead_id
    WHERE leads.lead_id IS NULL OR leads.merged_into IS NOT NULL
    UNION ALL
    SELECT part.lead_id, 'merged into a lead that is no root'
    FROM (SELECT lead_id, merged_into FROM leads WHERE merged_into >= :lead ORDER BY merged_into LIMIT :size)
        AS part LEFT JOIN leads AS roots ON roots.lead_id = part.merged_into
    WHERE roots.lead_id IS NULL OR roots.merged_into IS NOT NULL
    """
)


@dataclass(frozen=True, slots=True)
class Sample:
    """Leads under no lock, for `load`; `joined`: those that absorbed others; `mqls`: all of them, by lead."""

    locked: Locked
    joined: frozenset[str]
    mqls: dict[str, list[Row[Any]]]


async def accepted(session: Session, since: datetime, before: datetime) -> list[list[Row[Any]]]:
    """Two slices of the inbox: the newest items, and those from a random moment on."""
    newest = await session.execute(NEWEST_ACCEPTED, since_at=since, before_at=before, size=SLICE)
    start = some_moment(since, before)
    others = await session.execute(ACCEPTED_SINCE, since_at=start, before_at=before, size=SLICE)
    return [part for part in (newest, others) if part]


async def recorded(session: Session, activity_ids: Collection[str]) -> set[str]:
    """Those of these activities that are stored."""
    rows = await session.execute(RECORDED, column(activity_ids)) if activity_ids else []
    return {row.activity_id for row in rows}


async def told(session: Session, event_ids: Collection[str], since: datetime, before: datetime) -> set[str]:
    """Those of these events that wait in the outbox, are parked, or were published between two moments."""
    rows = column(event_ids)
    found = await session.execute(TOLD, rows, since_at=since, before_at=before) if rows else []
    return {row.event_id for row in found}


async def stored_and_dead(session: Session, activity_ids: Collection[str]) -> set[str]:
    """Those of these stored activities that are dead letters too, and were not sent again since. Reads the outbox."""
    rows = await session.execute(STORED_AND_DEAD, column(activity_ids)) if activity_ids else []
    return {row.event_id for row in rows}


async def sample(session: Session) -> Sample:
    """The newest leads, provisional and known, as many from a random moment on, and some that qualified."""
    now = await session.now()
    known, provisional = await _some_lead(session, KNOWN, now), await _some_lead(session, PROVISIONAL, now)
    ids = await session.execute(SAMPLED, known=known, provisional=provisional, mql=some_key("mql_"), size=SAMPLE)
    rows = {row.lead_id: row for row in await session.execute(SCORED, [(row.lead_id,) for row in ids])}
    leads = column(rows)
    mqls: dict[str, list[Row[Any]]] = {}
    for row in await session.execute(MQLS_OF, leads):
        mqls.setdefault(row.lead_id, []).append(row)
    joined = frozenset(row.merged_into for row in await session.execute(JOINED, leads))
    return Sample(Locked(rows, {lead_id: lead_id for lead_id in rows}), joined, mqls)


async def not_at_a_root(session: Session) -> set[tuple[str, str]]:
    """(Id, what it is) of rows whose lead is missing or was absorbed: two slices of each table."""
    lead = await _some_lead(session, KNOWN, await session.now())
    found = set[tuple[str, str]]()
    for activity, mql, first in (("", "", ""), (some_key("act_"), some_key("mql_"), lead)):
        rows = await session.execute(NOT_AT_A_ROOT, activity=activity, mql=mql, lead=first, size=SLICE)
        found |= {(row.subject, row.detail) for row in rows}
    return found


async def _some_lead(session: Session, prefix: str, now: datetime) -> str:
    """Where the leads begin that were met from a random moment on: their ids are UUIDv7."""
    oldest = await session.first(OLDEST_LEAD, prefix=prefix)
    moment = some_moment(oldest.created_at if oldest else now, now)
    digits = f"{int(moment.timestamp() * 1000):012x}"
    return f"{prefix}{digits[:8]}-{digits[8:]}"
