"""What people read of leads: without locks, under any id that a lead ever had."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy.engine import Row

from services.scoring.store.locks import column
from shared.db import Session
from shared.sql import sql

Rows = list[Row[Any]]

CONTACT_FACTS = sql(
    """
    SELECT rows.lead_id AS root, contact_facts.name, contact_facts.value, contact_facts.occurred_at
    FROM {rows}
    JOIN leads ON leads.lead_id = rows.lead_id OR leads.merged_into = rows.lead_id
    JOIN contact_facts ON contact_facts.lead_id = leads.lead_id
    ORDER BY contact_facts.occurred_at, contact_facts.fact_id
    """,
    lead_id="text",
)

EMAILS = sql(
    """
    SELECT rows.lead_id AS root, identities.value
    FROM {rows}
    JOIN leads ON leads.lead_id = rows.lead_id OR leads.merged_into = rows.lead_id
    JOIN identities ON identities.lead_id = leads.lead_id
    WHERE identities.kind = 'email'
    ORDER BY identities.value DESC
    """,
    lead_id="text",
)

LEAD = sql(
    """
    SELECT roots.lead_id, roots.agreement_version, roots.last_received_at, roots.facts
    FROM leads JOIN leads AS roots ON roots.lead_id = coalesce(leads.merged_into, leads.lead_id)
    WHERE leads.lead_id = :lead_id
    """
)

ABSORBED = sql("SELECT lead_id FROM leads WHERE merged_into = :lead_id ORDER BY lead_id")

IDENTITIES = sql(
    """
    SELECT identities.kind, identities.value
    FROM leads JOIN identities ON identities.lead_id = leads.lead_id
    WHERE leads.lead_id = :lead_id OR leads.merged_into = :lead_id
    ORDER BY identities.kind, identities.value
    """
)

SCORES = sql(
    """
    SELECT lead_scores.lead_id, lead_scores.scorecard, lead_scores.product, lead_scores.motion, lead_scores.score,
        lead_scores.dimensions, lead_scores.bucket, lead_scores.cycle, lead_scores.version,
        lead_scores.agreement_version, lead_scores.as_of_at, lead_scores.tally
    FROM lead_scores
    JOIN leads ON leads.lead_id = lead_scores.lead_id AND leads.agreement_version = lead_scores.agreement_version
    WHERE lead_scores.lead_id IN (SELECT lead_id FROM {rows})
    ORDER BY lead_scores.lead_id, lead_scores.scorecard
    """,
    lead_id="text",
)

MQLS = sql(
    """
    SELECT lead_id, mql_id, cycle, product, motion, qualified_at, clause, ended_at, gave_way_at FROM mqls
    WHERE lead_id IN (SELECT lead_id FROM {rows}) ORDER BY qualified_at, mql_id
    """,
    lead_id="text",
)

PAGE = sql(
    """
    SELECT lead_id FROM leads
    WHERE merged_into IS NULL AND last_received_at IS NOT NULL AND lead_id > :after
    ORDER BY lead_id LIMIT :limit
    """
)

PAGE_OF_BUCKET = sql(
    """
    SELECT DISTINCT lead_scores.lead_id
    FROM lead_scores
    JOIN leads ON leads.lead_id = lead_scores.lead_id AND leads.agreement_version = lead_scores.agreement_version
    WHERE lead_scores.bucket = :bucket AND lead_scores.lead_id > :after
    ORDER BY lead_scores.lead_id LIMIT :limit
    """
)


async def contacts(session: Session, roots: Iterable[str]) -> dict[str, dict[str, str]]:
    """How to reach each root: the latest of each field, else its first e-mail address; an empty one was cleared."""
    found: dict[str, dict[str, str]] = {root: {} for root in roots}
    for row in await session.execute(EMAILS, column(found)):
        found[row.root]["email"] = row.value
    for row in await session.execute(CONTACT_FACTS, column(found)):
        found[row.root][row.name] = row.value
    return {root: {name: value for name, value in fields.items() if value} for root, fields in found.items()}


async def lead(session: Session, lead_id: str) -> Row[Any] | None:
    """The root that an id stands for; None: there is no such lead."""
    return await session.first(LEAD, lead_id=lead_id)


async def absorbed(session: Session, root: str) -> list[str]:
    return [row.lead_id for row in await session.execute(ABSORBED, lead_id=root)]


async def identities(session: Session, root: str) -> Rows:
    return await session.execute(IDENTITIES, lead_id=root)


async def scores(session: Session, roots: Iterable[str]) -> Rows:
    """The scores of these roots under the agreement version each is judged by."""
    return await session.execute(SCORES, column(roots))


async def mqls(session: Session, roots: Iterable[str]) -> Rows:
    return await session.execute(MQLS, column(roots))


async def page(session: Session, *, after: str, limit: int, bucket: str | None) -> list[str]:
    """Roots after an id, in the order of ids; of a bucket: those that one of their scores puts there."""
    if bucket is None:
        rows = await session.execute(PAGE, after=after, limit=limit)
    else:
        rows = await session.execute(PAGE_OF_BUCKET, after=after, limit=limit, bucket=bucket)
    return [row.lead_id for row in rows]
