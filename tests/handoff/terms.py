"""An agreement whose office never closes, so that deadlines are plain arithmetic, and what the tests say under it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from services.handoff.case import Case, Handoff, Touch
from services.handoff.terms import Terms, facts_of, terms_of
from shared.agreement import parse, sha256
from shared.agreement_copies import keep_published
from shared.bus import Record
from shared.clock import uuid7
from shared.db import Database
from shared.envelope import Received
from shared.events import AgreementPublished, Event, MqlQualified
from shared.settle import Handler
from tests.handoff.support import ACME

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
TRACEPARENT = "00-11111111111111111111111111111111-2222222222222222-01"

_ROUTING = """
routing:
  - {id: robots, when: {product: robots}, pool: robots}
  - {otherwise: true, pool: lonely, last_resort: sam@acme.example}
"""
_POOLS = """
pools:
  - {id: robots, members: [{rep: ana, weight: 2}, {rep: bo}, {rep: chi}]}
  - {id: lonely, members: [{rep: gone}]}
"""
_SLA = """
sla:
  calendars:
    - {id: always, timezone: UTC, hours: {mon-sun: ["00:00-24:00"]}}
  policies:
    - id: hot
      when: {bucket: hot}
      calendar: always
      milestones:
        accept: {within: PT5M, from: assigned}
        first_touch: {within: PT10M, from: mql}
        next_step: {within: PT24H, from: previous}
      warn_at: [50%, 80%]
      on_breach: [notify_manager, reassign]
      max_reassigns: 1
    - id: quick
      when: {segment: quick}
      calendar: always
      milestones: {accept: {within: PT1S, from: assigned}}
      on_breach: [notify_manager, reassign]
      max_reassigns: 1
    - {id: calm, otherwise: true, calendar: always, milestones: {first_touch: {within: PT1H, from: mql}}}
"""


def _section(content: str, name: str, replacement: str) -> str:
    """The agreement with one of its sections replaced."""
    kept, is_inside = [], False
    for line in content.splitlines():
        if line and not line[0].isspace() and not line.startswith("#"):
            is_inside = line.startswith(f"{name}:")
        if not is_inside:
            kept.append(line)
    return "\n".join(kept) + "\n" + replacement


CONTENT = _section(_section(_section(ACME, "routing", _ROUTING), "pools", _POOLS), "sla", _SLA).replace(
    "\nreps:\n", "\nreps:\n  - {id: gone, name: Gone, email: gone@acme.example, active: false}\n"
)


def mql_id(lead_id: str, product: str = "robots", cycle: int = 1) -> str:
    return "mql_" + hashlib.sha256(f"{lead_id}|{product}|new_business|{cycle}".encode()).hexdigest()[:32]


def handoff_id(lead_id: str, product: str = "robots", cycle: int = 1) -> str:
    return mql_id(lead_id, product, cycle).replace("mql_", "handoff_")


def mql(lead_id: str = "lead_1", *, at: datetime = NOON, bucket: str = "hot", **other: Any) -> MqlQualified:
    """A qualified lead; `other`: fields that matter to the test."""
    fields: dict[str, Any] = {"product": "robots", "cycle": 1, "agreement_version": 1, **other}
    return MqlQualified(
        lead_id=lead_id,
        mql_id=mql_id(lead_id, fields["product"], fields["cycle"]),
        motion="new_business",
        scorecard="robots-new-business",
        score=80.0,
        dimensions={"fit": 50.0, "engagement": 80.0},
        bucket=bucket,
        clause="any[0]",
        raised_hand=False,
        qualified_at=at,
        explanation=[],
        **fields,
    )


def terms(**other: Any) -> Terms:
    return terms_of(parse(CONTENT), facts_of(mql(**other)))


def opened(*, at: datetime = NOON, **other: Any) -> Case:
    """A handoff that nobody has routed yet."""
    event = mql(at=at, **other)
    return Case(
        Handoff(
            handoff_id=handoff_id(event.lead_id, event.product, event.cycle),
            mql_id=event.mql_id,
            lead_id=event.lead_id,
            opened_for=event.lead_id,
            product=event.product,
            motion=event.motion,
            cycle=event.cycle,
            clause=event.clause,
            facts=facts_of(event),
            agreement_version=event.agreement_version,
            traceparent=TRACEPARENT,
            qualified_at=event.qualified_at,
            opened_at=at,
        )
    )


def touch(by: str, at: datetime, *, heard_at: datetime | None = None, kind: str = "call_logged") -> Touch:
    touch_id = f"touch_{uuid7()}"
    return Touch(touch_id, "lead_1", "lead_1", kind, by, "hubspot", touch_id, at, heard_at or at)


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def received(event: Event, event_id: str | None = None) -> Received[Any]:
    """An event as a handler gets it."""
    record = Record(event.topic, 0, 0, NOON, event.key.encode(), b"", ())
    return Received(event, event_id or uuid7(), "/baton/test", NOON, TRACEPARENT, record)


async def handle(database: Database, handler: Handler, events: Sequence[Event | Received[Any]]) -> None:
    """One batch through a handler, in one transaction."""
    records = [event if isinstance(event, Received) else received(event) for event in events]
    await database.run(lambda session: _handled(session, handler, records))


async def _handled(session: Any, handler: Handler, records: Sequence[Received[Any]]) -> None:
    await handler(records, session=session, now=await session.now())


async def publish(database: Database, content: str = CONTENT, version: int = 1) -> None:
    event = AgreementPublished(
        agreement="acme",
        version=version,
        sha256=sha256(content),
        content=content,
        signatures=[],
        published_at=NOON,
        effective_from=NOON,
    )
    await database.run(lambda session: keep_published([event], session=session))
