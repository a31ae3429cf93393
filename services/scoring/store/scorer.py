"""The state of leads: loaded under their locks, folded in memory, written back. One statement a step and batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy.engine import Row

from services.scoring.batch import Crossed
from services.scoring.lead import Displayed, Lead, Standing, resume
from services.scoring.qualify import Mql, current_cycle
from services.scoring.score import Fact, Reading, Tally
from services.scoring.scorecard import Card
from services.scoring.store.activities import histories
from services.scoring.store.locks import Locked, column
from shared.db import Session
from shared.sql import sql

# By the whole primary key: with `lead_id` alone a PostgreSQL that has not analysed the table yet expects hundreds of
# rows a lead, and reads all of it (16 ms a batch of 100,000 leads instead of 4).
SCORES = sql(
    """
    SELECT lead_scores.lead_id, lead_scores.scorecard, lead_scores.agreement_version, lead_scores.tally,
        lead_scores.score, lead_scores.dimensions, lead_scores.bucket, lead_scores.version, lead_scores.as_of_at
    FROM {rows} JOIN lead_scores ON lead_scores.lead_id = rows.of_lead AND lead_scores.scorecard = rows.of_scorecard
    """,
    of_lead="text",
    of_scorecard="text",
)

MQLS = sql(
    """
    SELECT mql_id, made_for, lead_id, product, motion, cycle, ended_at, gave_way_at FROM mqls
    WHERE lead_id IN (SELECT lead_id FROM {rows}) ORDER BY cycle, mql_id
    """,
    lead_id="text",
)

LEADS_OF_MQLS = sql("SELECT mql_id, made_for FROM mqls WHERE mql_id IN (SELECT mql_id FROM {rows})", mql_id="text")

CLOSE_MQLS = sql(
    """
    UPDATE mqls SET ended_at = rows.ended_at, gave_way_at = rows.gave_way_at FROM {rows}
    WHERE mqls.mql_id = rows.mql_id AND mqls.ended_at IS NULL AND mqls.gave_way_at IS NULL
    RETURNING lead_id
    """,
    mql_id="text",
    ended_at="timestamptz",
    gave_way_at="timestamptz",
)

UPDATE_LEADS = sql(
    """
    UPDATE leads SET agreement_version = rows.agreement_version, last_received_at = rows.last_received_at,
        facts = rows.facts
    FROM {rows} WHERE leads.lead_id = rows.lead_id
    """,
    lead_id="text",
    agreement_version="bigint",
    last_received_at="timestamptz",
    facts="text",
)

POINT_LEADS = sql(
    """
    UPDATE leads SET merged_into = rows.survivor FROM {rows}
    WHERE leads.lead_id = rows.absorbed OR leads.merged_into = rows.absorbed
    """,
    absorbed="text",
    survivor="text",
)

POINT_ACTIVITIES = sql(
    "UPDATE activities SET lead_id = rows.survivor FROM {rows} WHERE activities.lead_id = rows.absorbed",
    absorbed="text",
    survivor="text",
)

POINT_MQLS = sql(
    "UPDATE mqls SET lead_id = rows.survivor FROM {rows} WHERE mqls.lead_id = rows.absorbed",
    absorbed="text",
    survivor="text",
)

FORGET_SCORES = sql("DELETE FROM lead_scores WHERE lead_id IN (SELECT lead_id FROM {rows})", lead_id="text")

PUT_SCORES = sql(
    """
    INSERT INTO lead_scores (lead_id, scorecard, product, motion, agreement_version, tally, score, dimensions, bucket,
        cycle, version, as_of_at)
    SELECT lead_id, scorecard, product, motion, agreement_version, tally, score, dimensions, bucket,
        cycle, version, as_of_at FROM {rows} WHERE true
    ON CONFLICT (lead_id, scorecard) DO UPDATE SET product = excluded.product, motion = excluded.motion,
        agreement_version = excluded.agreement_version, tally = excluded.tally, score = excluded.score,
        dimensions = excluded.dimensions, bucket = excluded.bucket, cycle = excluded.cycle,
        version = excluded.version, as_of_at = excluded.as_of_at
    """,
    lead_id="text",
    scorecard="text",
    product="text",
    motion="text",
    agreement_version="bigint",
    tally="text",
    score="bigint",
    dimensions="text",
    bucket="text",
    cycle="bigint",
    version="bigint",
    as_of_at="timestamptz",
)

INSERT_MQLS = sql(
    """
    INSERT INTO mqls (mql_id, made_for, lead_id, product, motion, cycle, scorecard, agreement_version, clause,
        crossed_by, qualified_at, created_at)
    SELECT mql_id, made_for, lead_id, product, motion, cycle, scorecard, agreement_version, clause,
        crossed_by, qualified_at, clock_timestamp() FROM {rows} WHERE true
    """,
    mql_id="text",
    made_for="text",
    lead_id="text",
    product="text",
    motion="text",
    cycle="bigint",
    scorecard="text",
    agreement_version="bigint",
    clause="text",
    crossed_by="text",
    qualified_at="timestamptz",
)


async def load(
    session: Session, locked: Locked, cards: Mapping[int, Sequence[Card]], histories_of: Iterable[str]
) -> dict[str, Lead]:
    """The locked roots in memory, by id; `histories_of` with all their activities."""
    ids = column(locked.rows)
    card_ids = sorted({card.id for version in cards.values() for card in version})
    scores = _by_lead(await session.execute(SCORES, [(*lead_id, card_id) for lead_id in ids for card_id in card_ids]))
    mqls = _by_lead(await session.execute(MQLS, ids))
    wanted = set(histories_of)
    known = await histories(session, wanted) if wanted else {}
    leads = {}
    for lead_id, row in locked.rows.items():
        lead = Lead(lead_id, row.agreement_version, row.last_received_at, _facts.decode(row.facts))
        lead.mqls = [_mql(found) for found in mqls.get(lead_id, ())]
        rows = {score.scorecard: score for score in scores.get(lead_id, ())}
        for score in rows.values():
            lead.last_received_at = max(lead.last_received_at or score.as_of_at, score.as_of_at)
        lead.displayed = {card_id: _displayed(score) for card_id, score in rows.items()}
        lead.standings = [_standing(lead, card, rows.get(card.id)) for card in cards.get(lead.version, ())]
        if lead_id in wanted or row.last_received_at is None:
            lead.history = known.get(lead_id, [])
        leads[lead_id] = lead
    return leads


async def leads_of_mqls(session: Session, mql_ids: Iterable[str]) -> dict[str, str]:
    """The leads these MQLs were made for; unknown ones are left out."""
    rows = await session.execute(LEADS_OF_MQLS, column(mql_ids))
    return {row.mql_id: row.made_for for row in rows}


async def close_mqls(session: Session, closings: Iterable[tuple[str, datetime | None, datetime | None]]) -> set[str]:
    """End MQLs (id, ended at) or let them give way (id, None, when); the roots of those that were open until now."""
    return {row.lead_id for row in await session.execute(CLOSE_MQLS, sorted(closings))}


async def put_merges(session: Session, survivors: Mapping[str, str]) -> None:
    """Everything of each absorbed root is its survivor's from now on; what was displayed of it is forgotten."""
    if not survivors:
        return
    rows = sorted(survivors.items())
    for statement in (POINT_LEADS, POINT_ACTIVITIES, POINT_MQLS):
        await session.execute(statement, rows)
    await session.execute(FORGET_SCORES, column(survivors))


async def put_leads(session: Session, leads: Sequence[Lead]) -> None:
    """Write leads and their scores back, as they are displayed.

    `last_received_at` is the scores' `as_of_at`, too, so that an activity that only scores costs one row, not two.
    """
    changed = [
        (lead.lead_id, lead.version, lead.last_received_at, _json(lead.facts))
        for lead in leads
        if lead.is_changed or not lead.standings
    ]
    if changed:
        await session.execute(UPDATE_LEADS, changed)
    scores = [
        _score_row(lead, standing, lead.displayed[standing.card.id])
        for lead in leads
        for standing in lead.standings
        if standing.card.id in lead.displayed
    ]
    if scores:
        await session.execute(PUT_SCORES, scores)


async def insert_mqls(session: Session, crossed: Iterable[Crossed], roots: Mapping[str, str]) -> None:
    """Store new MQLs, under the roots their leads have now."""
    rows = [_mql_row(one, roots.get(one.crossing.lead_id, one.crossing.lead_id)) for one in crossed]
    if rows:
        await session.execute(INSERT_MQLS, rows)


_facts = msgspec.json.Decoder(dict[str, Fact])
_tally = msgspec.json.Decoder(Tally)
_dimensions = msgspec.json.Decoder(dict[str, int])


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _by_lead(rows: Iterable[Row[Any]]) -> dict[str, list[Row[Any]]]:
    found: dict[str, list[Row[Any]]] = {}
    for row in rows:
        found.setdefault(row.lead_id, []).append(row)
    return found


def _mql(row: Row[Any]) -> Mql:
    return Mql(
        row.mql_id, row.made_for, row.product, row.motion, row.cycle, row.ended_at, gave_way=row.gave_way_at is not None
    )


def _displayed(row: Row[Any]) -> Displayed:
    return Displayed(Reading(row.score, _dimensions.decode(row.dimensions), row.bucket), row.version)


def _standing(lead: Lead, card: Card, row: Row[Any] | None) -> Standing:
    cycle = current_cycle(lead.mqls, card.product, card.motion)
    if row is None:
        return Standing(card, Tally(), cycle)
    tally = _tally.decode(row.tally)
    if row.agreement_version != lead.version:
        return Standing(card, tally, cycle)
    return resume(card, tally, cycle, lead.displayed[card.id], row.as_of_at)


def _score_row(lead: Lead, standing: Standing, displayed: Displayed) -> tuple[object, ...]:
    card, reading = standing.card, displayed.reading
    return (
        lead.lead_id,
        card.id,
        card.product,
        card.motion,
        lead.version,
        _json(standing.tally),
        reading.score,
        _json(reading.dimensions),
        reading.bucket,
        standing.cycle.number,
        displayed.version,
        lead.last_received_at,
    )


def _mql_row(crossed: Crossed, root: str) -> tuple[object, ...]:
    crossing = crossed.crossing
    mql = crossing.mql
    return (
        mql.mql_id,
        mql.made_for,
        root,
        mql.product,
        mql.motion,
        mql.cycle,
        crossing.card.id,
        crossing.agreement_version,
        crossing.qualification.clause,
        crossed.crossed_by,
        crossed.qualified_at,
    )
