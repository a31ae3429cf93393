"""Events as the other services send them, under the sample agreement, and what they come in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from shared.agreement import parse, sha256
from shared.bus import Record
from shared.envelope import Received, decode, encode
from shared.events import (
    AgreementPublished,
    Event,
    ExplanationLine,
    HandoffAssigned,
    HandoffEvent,
    HandoffUnrouted,
    LeadErased,
    LeadMerged,
    MqlQualified,
    NurtureEvent,
    NurtureRequested,
    NurtureSuspended,
    SlaBreached,
    SlaEvent,
)

CONTENT = (Path(__file__).resolve().parents[2] / "deploy/agreements/acme.yaml").read_text()
ACME = parse(CONTENT)
FRIDAY = datetime(2027, 11, 19, 15, 0, tzinfo=UTC)  # 10:00 in New York, a working day
TRACE = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
LEAD = "lead_0199"
CONTACT = {"email": "ada@plant.example", "name": "Ada Byron", "company": "Plant & Sons", "crm.hubspot": "123"}

_offsets = count()


def mql(*, mql_id: str = "mql_1", lead_id: str = LEAD, contact: dict[str, str] | None = None) -> MqlQualified:
    return MqlQualified(
        lead_id=lead_id,
        mql_id=mql_id,
        product="robots",
        motion="new_business",
        cycle=1,
        scorecard="robots-new-business",
        score=110.0,
        dimensions={"fit": 60.0, "engagement": 50.0},
        bucket="hot",
        clause="any-1",
        raised_hand=False,
        agreement_version=1,
        qualified_at=FRIDAY,
        explanation=[
            ExplanationLine(kind="rule", dimension="engagement", rule="pricing", count=3, points=30.0),
            ExplanationLine(kind="rule", dimension="fit", rule="size", count=1, points=60.0),
            ExplanationLine(kind="rule", dimension="engagement", rule="careers", count=1, points=-15.0),
            ExplanationLine(kind="group_cap", dimension="fit", group="company", points=-5.0),
        ],
        contact=CONTACT if contact is None else contact,
        attributes={"country": "US", "company_size": 500},
    )


def handoff(
    kind: type[HandoffEvent] = HandoffAssigned,
    *,
    number: int = 1,
    lead_id: str = LEAD,
    owner: str | None = "ana",
    at: datetime = FRIDAY,
) -> HandoffEvent:
    return kind(
        handoff_id=f"handoff_{number}",
        mql_id=f"mql_{number}",
        opened_for=lead_id,
        lead_id=lead_id,
        product="robots",
        motion="new_business",
        cycle=1,
        agreement_version=1,
        version=1,
        state="unrouted" if kind is HandoffUnrouted else "assigned",
        at=at,
        actor="baton",
        cause=f"mql_{number}",
        owner=None if kind is HandoffUnrouted else owner,
        pool="na-robots",
    )


def sla(
    kind: type[SlaEvent] = SlaBreached,
    *,
    owner: str | None = "chi",
    manager: str | None = "ana@acme.example",
    at: datetime = FRIDAY,
    lead_id: str = LEAD,
) -> SlaEvent:
    return kind(
        clock_id="clock_1",
        handoff_id="handoff_1",
        mql_id="mql_1",
        opened_for=lead_id,
        lead_id=lead_id,
        milestone="first_touch",
        subject="lead",
        policy="hot",
        agreement_version=1,
        version=3,
        started_at=FRIDAY,
        due_at=FRIDAY + timedelta(minutes=10),
        at=at,
        elapsed_seconds=600.0,
        wall_seconds=600.0,
        owner=owner,
        manager=manager,
    )


def nurture(
    kind: type[NurtureEvent] = NurtureSuspended, *, version: int = 1, number: int = 1, at: datetime = FRIDAY
) -> NurtureEvent:
    common: dict[str, Any] = {"handoff_id": f"handoff_{number}", "mql_id": f"mql_{number}"}
    common |= {"opened_for": LEAD, "lead_id": LEAD}
    if kind is NurtureRequested:
        wake_at = FRIDAY + timedelta(days=90)
        return NurtureRequested(
            **common,
            version=version,
            at=at,
            track="budget-track",
            reason="no_budget",
            reason_class="timing",
            wake_at=wake_at,
        )
    return kind(**common, version=version, at=at)


def published(version: int = 1) -> AgreementPublished:
    return AgreementPublished(
        agreement="acme",
        version=version,
        sha256=sha256(CONTENT),
        content=CONTENT,
        signatures=[],
        published_at=FRIDAY - timedelta(days=1),
        effective_from=FRIDAY - timedelta(days=1),
    )


def erased(lead_id: str = LEAD) -> LeadErased:
    return LeadErased(lead_id=lead_id, erased_at=FRIDAY)


def merged(absorbed_id: str, survivor_id: str = LEAD) -> LeadMerged:
    return LeadMerged(absorbed_id=absorbed_id, survivor_id=survivor_id, merged_at=FRIDAY)


def received(event: Event, event_id: str | None = None) -> Received[Event]:
    """The event as a handler gets it, through the wire format."""
    offset = next(_offsets)
    message = encode(
        event, event_id=event_id or f"event-{offset}", source="/baton/test", time=FRIDAY, traceparent=TRACE
    )
    record = Record(message.topic, 0, offset, FRIDAY, message.key, message.value, message.headers)
    return decode(record)
