"""The locks of the scorer: leads and their roots, in the order of their ids, all of a batch at once (law 11).

Every batch first asks which of its leads are missing or merged (most are neither) and makes the missing rows; then it
locks. Only a root that changed in between lets the batch run again; a lead's state is read under the lock and never
kept beyond the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Row

from shared.db import DatabaseUnavailable, Session
from shared.sql import sql

CREATE_LEADS = sql(
    """
    INSERT INTO leads (lead_id, created_at)
    SELECT lead_id, clock_timestamp() FROM {rows} WHERE true ORDER BY lead_id
    ON CONFLICT (lead_id) DO NOTHING
    """,
    lead_id="text",
)

NO_ROOTS = sql(
    """
    SELECT rows.lead_id, leads.merged_into FROM {rows} LEFT JOIN leads ON leads.lead_id = rows.lead_id
    WHERE leads.lead_id IS NULL OR leads.merged_into IS NOT NULL
    """,
    lead_id="text",
)

FAMILY = sql(
    """
    SELECT lead_id, merged_into AS root FROM leads WHERE merged_into IN (SELECT lead_id FROM {rows})
    ORDER BY lead_id
    """,
    lead_id="text",
)

LOCK = sql(
    """
    SELECT lead_id, merged_into, agreement_version, last_received_at, facts FROM leads
    WHERE lead_id IN (SELECT lead_id FROM {rows}) ORDER BY lead_id {for_update}
    """,
    lead_id="text",
)

# No order: who skips what is locked waits for nobody, and sorting for each batch all that is left to do is quadratic.
LOCK_OUTDATED = sql(
    """
    SELECT lead_id, merged_into, agreement_version, last_received_at, facts FROM leads
    WHERE merged_into IS NULL AND agreement_version < :version
        AND lead_id NOT IN (SELECT but_lead FROM {rows})
    LIMIT :limit {skip_locked}
    """,
    but_lead="text",
)


class RootChanged(DatabaseUnavailable):
    """A lead was merged between reading its root and locking it: the batch runs again."""


@dataclass(frozen=True, slots=True)
class Locked:
    """Leads under lock: the rows of their roots, and which root each id stands for."""

    rows: Mapping[str, Row[Any]]
    roots: Mapping[str, str]


async def lock(session: Session, lead_ids: Iterable[str], *, merging: Iterable[str] = ()) -> Locked:
    """Make the missing leads; lock them, their roots, and all that points at the roots of `merging`. `RootChanged`."""
    ids = column(lead_ids)
    exceptions = await session.execute(NO_ROOTS, ids)
    if missing := column(row.lead_id for row in exceptions if row.merged_into is None):
        await session.execute(CREATE_LEADS, missing)
    roots = {lead_id: lead_id for (lead_id,) in ids} | {
        row.lead_id: row.merged_into or row.lead_id for row in exceptions
    }
    heads = column(roots[lead_id] for lead_id in merging)
    if heads:
        family = await session.execute(FAMILY, heads)
        roots |= {row.lead_id: row.root for row in family}
    rows = {row.lead_id: row for row in await session.execute(LOCK, column({*roots, *roots.values()}))}
    for lead_id, root in roots.items():
        if (rows[lead_id].merged_into or lead_id) != root:
            raise RootChanged(f"{lead_id} was merged meanwhile")
    return Locked({root: rows[root] for root in set(roots.values())}, roots)


async def lock_outdated(session: Session, version: int, limit: int, put_off: Iterable[str]) -> Locked:
    """Lock some leads that an older version of the agreement scored; none that somebody holds, or that was put off."""
    found = await session.execute(LOCK_OUTDATED, column(put_off), version=version, limit=limit)
    rows = {row.lead_id: row for row in found}
    return Locked(rows, {lead_id: lead_id for lead_id in rows})


def column(values: Iterable[str]) -> list[tuple[str]]:
    """Distinct values as the rows of a statement, sorted."""
    return [(value,) for value in sorted(set(values))]
