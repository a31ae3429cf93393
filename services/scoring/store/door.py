"""What the door reads and writes: one statement a step, for a whole group of requests.

Rows go in sorted by their key, so that any number of doors wait for each other in one order and never in a circle.
The mapping is read in a statement of its own: the snapshot of an insert misses the rows that it waited for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from services.scoring.identity import Identity
from services.scoring.resolve import Known
from shared.db import Session
from shared.sql import sql

PUT_DELIVERIES = sql(
    """
    INSERT INTO deliveries (delivery_id, source, body, received_at)
    SELECT delivery_id, source, body, :received_at FROM {rows} WHERE true
    ON CONFLICT (delivery_id) DO NOTHING
    """,
    delivery_id="text",
    source="text",
    body="bytea",
)

PUT_IDENTITIES = sql(
    """
    INSERT INTO identities (kind, value, lead_id, created_at)
    SELECT kind, value, lead_id, :created_at FROM {rows} WHERE true ORDER BY row_number
    ON CONFLICT (kind, value) DO NOTHING
    RETURNING kind, value
    """,
    kind="text",
    value="text",
    lead_id="text",
)

MAPPING = sql(
    """
    WITH met AS (
        SELECT identities.kind, identities.value, coalesce(leads.merged_into, identities.lead_id) AS lead_id
        FROM {rows} JOIN identities ON identities.kind = rows.kind AND identities.value = rows.value
        LEFT JOIN leads ON leads.lead_id = identities.lead_id
        UNION ALL
        SELECT rows.kind, rows.value, coalesce(leads.merged_into, rows.value) AS lead_id
        FROM {rows} LEFT JOIN leads ON leads.lead_id = rows.value
        WHERE rows.kind = 'lead_id'
    ), people AS (
        SELECT met.kind, met.value, met.lead_id, coalesce(joined_leads.person_id, met.lead_id) AS person_id
        FROM met LEFT JOIN joined_leads ON joined_leads.lead_id = met.lead_id
    ), members AS (
        SELECT person_id, person_id AS lead_id FROM people
        UNION
        SELECT joined_leads.person_id, joined_leads.lead_id
        FROM joined_leads JOIN people ON people.person_id = joined_leads.person_id
    )
    SELECT true AS is_met, kind, value, lead_id, person_id FROM people
    UNION ALL
    SELECT false, identities.kind, identities.value, identities.lead_id, members.person_id
    FROM members JOIN identities ON identities.lead_id = members.lead_id
    WHERE identities.kind NOT IN ('email', 'anonymous_id')
    """,
    kind="text",
    value="text",
)

EXISTING = sql(
    """
    SELECT rows.lead_id AS lead_id
    FROM {rows} LEFT JOIN leads ON leads.lead_id = rows.lead_id
    WHERE leads.lead_id IS NOT NULL
        OR EXISTS (SELECT 1 FROM identities WHERE identities.lead_id = rows.lead_id)
    """,
    lead_id="text",
)

LOCK_PEOPLE = sql(
    """
    SELECT kind, value FROM identities
    WHERE kind <> 'anonymous_id' AND lead_id IN (
        SELECT person_id FROM {rows}
        UNION ALL
        SELECT lead_id FROM joined_leads WHERE person_id IN (SELECT person_id FROM {rows})
    )
    ORDER BY kind, value {for_update}
    """,
    person_id="text",
)

LOCK_POINTERS = sql(
    """
    SELECT identities.kind, identities.value FROM identities
    WHERE (kind, value) IN (SELECT kind, value FROM {rows}) ORDER BY kind, value {for_update}
    """,
    kind="text",
    value="text",
)

POINT = sql(
    """
    UPDATE identities SET lead_id = rows.lead_id FROM {rows}
    WHERE identities.kind = rows.kind AND identities.value = rows.value
    """,
    kind="text",
    value="text",
    lead_id="text",
)

MOVE_PEOPLE = sql(
    "UPDATE joined_leads SET person_id = rows.person_id FROM {rows} WHERE joined_leads.person_id = rows.former",
    former="text",
    person_id="text",
)

JOIN_PEOPLE = sql(
    """
    INSERT INTO joined_leads (lead_id, person_id) SELECT former, person_id FROM {rows} WHERE true ORDER BY row_number
    ON CONFLICT (lead_id) DO UPDATE SET person_id = excluded.person_id
    """,
    former="text",
    person_id="text",
)

PUT_CONTACT_FACTS = sql(
    """
    INSERT INTO contact_facts (lead_id, name, value, occurred_at, fact_id)
    SELECT lead_id, name, value, occurred_at, fact_id FROM {rows} WHERE true ORDER BY row_number
    ON CONFLICT (lead_id, name) DO UPDATE
    SET value = excluded.value, occurred_at = excluded.occurred_at, fact_id = excluded.fact_id
    WHERE (excluded.occurred_at, excluded.fact_id) > (contact_facts.occurred_at, contact_facts.fact_id)
    """,
    lead_id="text",
    name="text",
    value="text",
    occurred_at="timestamptz",
    fact_id="text",
)

PUT_CONFLICTS = sql(
    """
    INSERT INTO identity_conflicts (conflict_id, source, source_id, lead_id, other_lead_id, kind, received_at)
    SELECT conflict_id, source, source_id, lead_id, other_lead_id, kind, :received_at FROM {rows} WHERE true
    ON CONFLICT (conflict_id) DO NOTHING
    """,
    conflict_id="text",
    source="text",
    source_id="text",
    lead_id="text",
    other_lead_id="text",
    kind="text",
)

PUT_QUARANTINE = sql(
    """
    INSERT INTO quarantine (quarantine_id, source, source_id, reason, item, delivery_id, received_at)
    SELECT quarantine_id, source, source_id, reason, item, delivery_id, :received_at
    FROM {rows} WHERE true ORDER BY row_number
    ON CONFLICT (quarantine_id) DO NOTHING
    """,
    quarantine_id="text",
    source="text",
    source_id="text",
    reason="text",
    item="bytea",
    delivery_id="text",
)


async def put_deliveries(session: Session, rows: Sequence[tuple[str, str, bytes]], *, received_at: datetime) -> None:
    """Keep (delivery id, source, body) of each request."""
    await session.execute(PUT_DELIVERIES, rows, received_at=received_at)


async def put_identities(session: Session, leads: Mapping[Identity, str], *, created_at: datetime) -> set[Identity]:
    """Give each identity this lead, unless it has one; those that had none."""
    rows = [(*identity, leads[identity]) for identity in sorted(leads)]
    found = await session.execute(PUT_IDENTITIES, rows, created_at=created_at) if rows else []
    return {Identity(row.kind, row.value) for row in found}


async def mapping(session: Session, identities: Iterable[Identity]) -> Known:
    """Who these identities lead to, as committed by anybody so far or written here."""
    rows = sorted(set(identities))
    leads: dict[Identity, str] = {}
    people: dict[str, str] = {}
    holdings: defaultdict[str, set[Identity]] = defaultdict(set)
    for row in await session.execute(MAPPING, rows) if rows else []:
        if row.is_met:
            leads[Identity(row.kind, row.value)] = row.lead_id
            people[row.lead_id] = row.person_id
        else:
            holdings[row.person_id].add(Identity(row.kind, row.value))
    return Known(leads, people, {person: frozenset(held) for person, held in holdings.items()})


async def existing(session: Session, lead_ids: Iterable[str]) -> set[str]:
    """Those of these leads that exist."""
    rows = [(lead_id,) for lead_id in sorted(set(lead_ids))]
    return {row.lead_id for row in await session.execute(EXISTING, rows)} if rows else set()


async def lock(session: Session, people: Iterable[str], pointers: Iterable[Identity]) -> None:
    """Hold these people's strong identities, then these anonymous ids, against other doors that change them."""
    persons = [(person,) for person in sorted(people)]
    if persons:
        await session.execute(LOCK_PEOPLE, persons)
    rows = sorted(pointers)
    if rows:
        await session.execute(LOCK_POINTERS, rows)


async def point(session: Session, leads: Mapping[Identity, str]) -> None:
    """From now on these identities lead there."""
    rows = [(*identity, leads[identity]) for identity in sorted(leads)]
    if rows:
        await session.execute(POINT, rows)


async def join_people(session: Session, people: Mapping[str, str]) -> None:
    """Each former person is now a part of the other."""
    rows = sorted(people.items())
    if rows:
        await session.execute(MOVE_PEOPLE, rows)
        await session.execute(JOIN_PEOPLE, rows)


async def put_contact_facts(session: Session, rows: Iterable[tuple[str, str, str, datetime, str]]) -> None:
    """Keep (lead, name, value, occurred at, fact id), where it is later than what is kept."""
    latest: dict[tuple[str, str], tuple[str, str, str, datetime, str]] = {}
    for row in sorted(rows, key=lambda row: row[3:]):
        latest[row[0], row[1]] = row
    if latest:
        await session.execute(PUT_CONTACT_FACTS, [latest[key] for key in sorted(latest)])


async def put_conflicts(
    session: Session, rows: Sequence[tuple[str, str, str, str, str, str]], *, received_at: datetime
) -> None:
    """List (id, source, source id, lead, other lead, kind) of records whose identities lead to two people."""
    if rows:
        await session.execute(PUT_CONFLICTS, rows, received_at=received_at)


async def put_quarantine(
    session: Session, rows: Sequence[tuple[str, str, str, str, bytes, str]], *, received_at: datetime
) -> None:
    """Keep (id, source, source id, reason, item, delivery id) of what cannot be used."""
    if rows:
        await session.execute(PUT_QUARANTINE, sorted(rows), received_at=received_at)
