"""Handoffs and their history. A handoff is loaded under its lock, with its clocks, and saved whole."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy.engine import Row

from services.handoff.case import Handoff, Line, PastOwner
from services.handoff.lifecycle import State
from services.handoff.store import clocks
from shared.arrays import ColumnType
from shared.db import Session
from shared.sql import sql

Alarm = Literal["wake_at", "route_at"]  # when a clock worker, or the router, looks at it next


COLUMNS: dict[str, ColumnType] = {
    "handoff_id": "text",
    "mql_id": "text",
    "lead_id": "text",
    "opened_for": "text",
    "product": "text",
    "motion": "text",
    "cycle": "bigint",
    "clause": "text",
    "facts": "text",
    "agreement_version": "bigint",
    "traceparent": "text",
    "qualified_at": "timestamptz",
    "state": "text",
    "version": "bigint",
    "owner": "text",
    "pool": "text",
    "reason": "text",
    "reassigns": "bigint",
    "attempts": "bigint",
    "past_owners": "text",
    "opened_at": "timestamptz",
    "assigned_at": "timestamptz",
    "ended_at": "timestamptz",
    "route_at": "timestamptz",
    "route_cause": "text",
    "wake_at": "timestamptz",
}
FIXED = frozenset({"handoff_id", "mql_id", "opened_for", "product", "motion", "cycle", "clause", "traceparent"})
NAMES = ", ".join(COLUMNS)
CHANGES = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in FIXED)

LINE_COLUMNS: dict[str, ColumnType] = {
    "handoff_id": "text",
    "version": "bigint",
    "from_state": "text",
    "to_state": "text",
    "type": "text",
    "actor": "text",
    "cause": "text",
    "happened_at": "timestamptz",
    "recorded_at": "timestamptz",
    "owner": "text",
    "reason": "text",
    "note": "text",
    "touch_id": "text",
    "decision": "text",
}
LINE_NAMES = ", ".join(LINE_COLUMNS)

SAVE = sql(
    f"""
    INSERT INTO handoffs ({NAMES}) SELECT {NAMES} FROM {{rows}} WHERE true
    ON CONFLICT (handoff_id) DO UPDATE SET {CHANGES}
    """,
    **COLUMNS,
)
APPEND = sql(f"INSERT INTO handoff_history ({LINE_NAMES}) SELECT {LINE_NAMES} FROM {{rows}} WHERE true", **LINE_COLUMNS)
LOCK = sql(
    f"""
    SELECT {NAMES} FROM handoffs WHERE handoff_id IN (SELECT wanted FROM {{rows}})
    ORDER BY handoff_id {{for_update}}
    """,
    wanted="text",
)
LOCK_OF_LEADS = sql(
    f"""
    SELECT {NAMES} FROM handoffs WHERE lead_id IN (SELECT wanted FROM {{rows}})
    ORDER BY handoff_id {{for_update}}
    """,
    wanted="text",
)
LEAD_OF = sql("SELECT lead_id FROM handoffs WHERE handoff_id = :handoff_id")
CLAIM_DUE = sql(
    """
    SELECT handoff_id FROM handoffs WHERE wake_at <= (SELECT clock_timestamp())
    ORDER BY wake_at LIMIT :limit {skip_locked}
    """
)
WAITING = sql(
    """
    SELECT handoff_id FROM handoffs WHERE route_at <= (SELECT clock_timestamp())
    ORDER BY route_at, handoff_id LIMIT :limit
    """
)
PUT_OFF = {
    "wake_at": sql("UPDATE handoffs SET wake_at = :until_at WHERE handoff_id = :handoff_id AND wake_at < :until_at"),
    "route_at": sql("UPDATE handoffs SET route_at = :until_at WHERE handoff_id = :handoff_id AND route_at < :until_at"),
}
DECISIONS = sql(
    """
    SELECT handoff_id, decision FROM handoff_history
    WHERE handoff_id IN (SELECT wanted FROM {rows}) AND decision IS NOT NULL ORDER BY handoff_id, version
    """,
    wanted="text",
)
ANSWERED = sql(
    """
    SELECT cause FROM handoff_history JOIN {rows} ON handoff_history.handoff_id = rows.wanted
    WHERE type = 'handoff.retraction_refused'
    """,
    wanted="text",
)
OTHER_OPEN = sql(
    """
    SELECT handoff_id FROM handoffs
    WHERE lead_id = :lead_id AND ended_at IS NULL AND handoff_id <> :handoff_id LIMIT 1
    """
)
HISTORY = sql(f"SELECT {LINE_NAMES} FROM handoff_history WHERE handoff_id = :handoff_id ORDER BY version")
READ = sql(
    f"SELECT {NAMES} FROM handoffs WHERE handoff_id IN (SELECT wanted FROM {{rows}}) ORDER BY handoff_id", wanted="text"
)
FIND = sql(f"SELECT {NAMES} FROM handoffs WHERE handoff_id = :handoff_id")
FORGET_NOTES = sql(
    """
    UPDATE handoff_history SET note = NULL WHERE note IS NOT NULL
      AND handoff_id IN (SELECT handoff_id FROM handoffs WHERE lead_id IN (SELECT wanted FROM {rows}))
    """,
    wanted="text",
)


async def lock(session: Session, handoff_ids: Collection[str]) -> list[Handoff]:
    """These handoffs with their clocks, under lock, by id."""
    rows = await session.execute(LOCK, rows=[(wanted,) for wanted in sorted(handoff_ids)])
    return await with_clocks(session, rows)


async def lock_of_leads(session: Session, lead_ids: Collection[str]) -> list[Handoff]:
    """Every handoff of these leads with its clocks, under lock, by id. The leads are locked already."""
    if not lead_ids:
        return []
    rows = await session.execute(LOCK_OF_LEADS, rows=[(wanted,) for wanted in sorted(lead_ids)])
    return await with_clocks(session, rows)


async def lead_of(session: Session, handoff_id: str) -> str | None:
    """The lead of a handoff as just read; it may change until the lead is locked."""
    row = await session.first(LEAD_OF, handoff_id=handoff_id)
    return str(row.lead_id) if row else None


async def claim_due(session: Session, limit: int) -> list[str]:
    """Handoffs with due clocks that no other worker holds, under lock, the longest due first. Nothing else is read."""
    return [row.handoff_id for row in await session.execute(CLAIM_DUE, limit=limit)]


async def waiting(session: Session, limit: int) -> list[str]:
    """Handoffs the router has to look at, not locked, the longest waiting first. Nothing else is read."""
    return [row.handoff_id for row in await session.execute(WAITING, limit=limit)]


async def put_off(session: Session, handoff_id: str, alarm: Alarm, until: datetime) -> None:
    """Nobody looks at this handoff before `until`; what its next change says comes on top."""
    await session.execute(PUT_OFF[alarm], handoff_id=handoff_id, until_at=until)


async def read(session: Session, handoff_ids: Collection[str]) -> list[Handoff]:
    """These handoffs with their clocks, not locked, by id."""
    return await with_clocks(session, await session.execute(READ, rows=[(wanted,) for wanted in handoff_ids]))


async def find(session: Session, handoff_id: str) -> Handoff | None:
    """A handoff with its clocks, not locked."""
    found = await with_clocks(session, await session.execute(FIND, handoff_id=handoff_id))
    return found[0] if found else None


async def history(session: Session, handoff_id: str) -> list[Line]:
    return [
        Line(**{**row._asdict(), "from_state": State(row.from_state) if row.from_state else None})
        for row in await session.execute(HISTORY, handoff_id=handoff_id)
    ]


async def decisions(session: Session, handoff_ids: Collection[str]) -> dict[str, str]:
    """The router's last decision on each, as JSON."""
    rows = await session.execute(DECISIONS, rows=[(wanted,) for wanted in handoff_ids])
    return {row.handoff_id: row.decision for row in rows}


async def has_other_open(session: Session, handoff: Handoff) -> bool:
    """Whether another handoff of its lead, which is locked, is open."""
    row = await session.first(OTHER_OPEN, lead_id=handoff.lead_id, handoff_id=handoff.handoff_id)
    return row is not None


async def refused(session: Session, handoff_ids: Collection[str]) -> set[str]:
    """The requests (their event ids) for a retraction of these handoffs that were refused already."""
    rows = await session.execute(ANSWERED, rows=[(wanted,) for wanted in handoff_ids])
    return {row.cause for row in rows}


async def save(session: Session, handoffs: Sequence[Handoff], lines: Sequence[Line]) -> None:
    """Write handoffs as they are now, with their clocks and the new lines of their history."""
    if handoffs:
        await session.execute(SAVE, rows=[_values(handoff) for handoff in handoffs])
    if lines:
        await session.execute(APPEND, rows=[tuple(getattr(line, name) for name in LINE_COLUMNS) for line in lines])
    await clocks.save(session, [clock for handoff in handoffs for clock in handoff.clocks])


async def forget_notes(session: Session, lead_ids: Collection[str]) -> None:
    """Drop what people wrote about these leads."""
    await session.execute(FORGET_NOTES, rows=[(wanted,) for wanted in lead_ids])


async def with_clocks(session: Session, rows: Iterable[Row[Any]]) -> list[Handoff]:
    """The handoffs of these rows (`NAMES`), with their clocks."""
    handoffs = [_handoff(row) for row in rows]
    if not handoffs:
        return []
    found = await clocks.of_handoffs(session, [handoff.handoff_id for handoff in handoffs])
    return [replace(handoff, clocks=found.get(handoff.handoff_id, ())) for handoff in handoffs]


def _handoff(row: Row[Any]) -> Handoff:
    values = row._asdict()
    del values["wake_at"]
    values["facts"] = json.loads(row.facts)
    values["state"] = State(row.state)
    values["past_owners"] = tuple(
        PastOwner(owner, datetime.fromisoformat(until), why) for owner, until, why in json.loads(row.past_owners)
    )
    return Handoff(**values)


def _values(handoff: Handoff) -> tuple[Any, ...]:
    kept = {
        "facts": json.dumps(dict(handoff.facts)),
        "past_owners": json.dumps([[owner, until.isoformat(), why] for owner, until, why in handoff.past_owners]),
    }
    return tuple(kept[name] if name in kept else getattr(handoff, name) for name in COLUMNS)
