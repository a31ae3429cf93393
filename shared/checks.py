"""`baton check`: invariants of a running system, read from outside. No finding: nothing was lost, doubled or forgotten.

Each service adds its own in `services/X/checks.py`: `async def checks(session: Session) -> list[Finding]`, found by the
entry points `baton.checks`. Here stand those of the spine, and the one that needs two services.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from shared.db import Database, Session
from shared.sql import sql

PAGE: Final = 5_000
SHOWN: Final = 20  # of one kind: who has thousands of findings needs the first ones

LATE = sql(
    "SELECT event_id, topic, created_at FROM outbox"
    " WHERE published_at IS NULL AND parked_at IS NULL AND created_at < :before_at ORDER BY id LIMIT :shown"
)
PARKED = sql("SELECT event_id, topic, parked_cause FROM outbox WHERE parked_at IS NOT NULL ORDER BY id LIMIT :shown")
MQLS = sql(
    "SELECT mql_id FROM mqls WHERE mql_id > :after AND qualified_at < :before_at ORDER BY mql_id LIMIT :size",
)
HANDED_OFF = sql("SELECT mql_id FROM handoffs WHERE mql_id IN (SELECT mql_id FROM {rows})", mql_id="text")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it must be. `invariant`: its number, e.g. I8; `subject`: an id, never personal data."""

    invariant: str
    subject: str
    detail: str


Check = Callable[[Session], Awaitable[list[Finding]]]


async def outbox_checks(session: Session, *, grace: timedelta) -> list[Finding]:
    """I14: nothing waits in the outbox longer than `grace`, nothing is parked."""
    before = await session.now() - grace
    late = await session.execute(LATE, before_at=before, shown=SHOWN)
    parked = await session.execute(PARKED, shown=SHOWN)
    return [
        *(Finding("I14", row.event_id, f"unpublished since {row.created_at.isoformat()}, {row.topic}") for row in late),
        *(Finding("I14", row.event_id, f"parked: {row.parked_cause}, {row.topic}") for row in parked),
    ]


async def handoff_checks(scoring: Database, handoff: Database, *, grace: timedelta) -> list[Finding]:
    """I8: every MQL older than `grace` has its handoff (a second one the unique key forbids)."""
    findings: list[Finding] = []
    after = ""
    before = await scoring.read(Session.now) - grace
    while page := await scoring.read(partial(_mqls, after=after, before=before)):
        found = await handoff.read(partial(_handed_off, mql_ids=page))
        findings += [Finding("I8", mql_id, "this MQL has no handoff") for mql_id in page if mql_id not in found]
        after = page[-1]
    return findings[:SHOWN]


async def _mqls(session: Session, after: str, before: datetime) -> list[str]:
    return [row.mql_id for row in await session.execute(MQLS, after=after, before_at=before, size=PAGE)]


async def _handed_off(session: Session, mql_ids: list[str]) -> set[str]:
    found = await session.execute(HANDED_OFF, rows=[(mql_id,) for mql_id in mql_ids])
    return {row.mql_id for row in found}
