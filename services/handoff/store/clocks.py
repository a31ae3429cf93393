"""The clocks of handoffs: rows that any worker can read, written with their handoff, under its lock."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy.engine import Row

from services.handoff.clock import Clock, ClockState, Milestone
from shared.arrays import ColumnType
from shared.db import Session
from shared.sql import sql

COLUMNS: dict[str, ColumnType] = {
    "clock_id": "text",
    "handoff_id": "text",
    "milestone": "text",
    "subject": "text",
    "state": "text",
    "version": "bigint",
    "policy": "text",
    "calendar": "text",
    "opened_version": "bigint",
    "started_at": "timestamptz",
    "due_at": "timestamptz",
    "wake_at": "timestamptz",
    "warned": "bigint",
    "breached_at": "timestamptz",
    "met_at": "timestamptz",
    "ended_at": "timestamptz",
    "late_report": "boolean",
}
CHANGING = ("state", "version", "wake_at", "warned", "breached_at", "met_at", "ended_at", "late_report")
NAMES = ", ".join(COLUMNS)

# `ORDER BY`: what is closed makes room in the unique index for what is opened.
SAVE = sql(
    f"""
    INSERT INTO clocks ({NAMES}) SELECT {NAMES} FROM {{rows}} WHERE true ORDER BY row_number
    ON CONFLICT (clock_id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in CHANGING)}
    WHERE clocks.version < excluded.version
    """,
    **COLUMNS,
)
OF_HANDOFFS = sql(
    f"""
    SELECT {NAMES} FROM clocks WHERE handoff_id IN (SELECT wanted FROM {{rows}})
    ORDER BY handoff_id, opened_version, milestone, subject
    """,
    wanted="text",
)


async def save(session: Session, clocks: Sequence[Clock]) -> None:
    """Write new and changed clocks; one that did not change costs nothing."""
    if not clocks:
        return
    ordered = sorted(clocks, key=lambda clock: (clock.is_open, clock.clock_id))
    await session.execute(SAVE, rows=[tuple(getattr(clock, name) for name in COLUMNS) for clock in ordered])


async def of_handoffs(session: Session, handoff_ids: Collection[str]) -> dict[str, tuple[Clock, ...]]:
    """The clocks of each handoff, the oldest first."""
    found: dict[str, tuple[Clock, ...]] = {}
    for row in await session.execute(OF_HANDOFFS, rows=[(wanted,) for wanted in handoff_ids]):
        found[row.handoff_id] = (*found.get(row.handoff_id, ()), _clock(row))
    return found


def _clock(row: Row[Any]) -> Clock:
    values = row._asdict()
    values["milestone"] = Milestone(row.milestone)
    values["state"] = ClockState(row.state)
    values["late_report"] = bool(row.late_report)
    return Clock(**values)
