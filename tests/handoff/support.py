"""What the tests of handoff share: the sample agreement in force, an MQL handed over, and what the outbox holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from services.handoff import agreement
from services.handoff.case import Handoff
from services.handoff.desk import handoff_id_of
from services.handoff.handlers import route_leads
from services.handoff.store import handoffs
from shared.bus import Record
from shared.clock import uuid7
from shared.db import Database, Session
from shared.envelope import Received, decode
from shared.events import Event, MqlQualified, Scalar
from shared.outbox import unpack_headers
from shared.sql import sql
from shared.telemetry import new_traceparent

ACME = (Path(__file__).resolve().parents[2] / "deploy/agreements/acme.yaml").read_text()
ALWAYS_OPEN = ACME.replace(
    'hours: {mon-fri: ["09:00-12:30", "13:30-18:00"]}', 'hours: {mon-sun: ["00:00-24:00"]}'
).replace("      holidays: US\n", "", 1)

OUTBOX = sql("SELECT topic, key, value, headers, created_at FROM outbox ORDER BY id")


async def publish(database: Database, content: str = ACME) -> int:
    """Draft, sign and publish; the version."""

    async def work(session: Session) -> int:
        draft, _ = await agreement.draft(session, content, created_by="tests")
        for party in agreement.PARTIES:
            head = "mia@acme.example" if party == "marketing" else "sam@acme.example"
            await agreement.sign(session, draft.sha256, party=party, signed_by=head, signed_sha256=draft.sha256)
        return (await agreement.publish(session, draft.sha256)).version or 0

    return await database.run(work)


async def handed_over(
    database: Database,
    lead_id: str = "lead_1",
    *,
    since: timedelta = timedelta(0),
    assigned: timedelta = timedelta(0),
    bucket: str = "hot",
) -> Handoff:
    """A lead qualified `since` ago, and was routed to the pool na-robots `assigned` ago."""
    country: dict[str, Scalar] = {"country": "US"}
    mql = MqlQualified(
        lead_id=lead_id,
        mql_id=f"mql_{lead_id}",
        product="robots",
        motion="new_business",
        cycle=1,
        scorecard="robots-new-business",
        score=110.0,
        dimensions={"fit": 50.0, "engagement": 60.0},
        bucket=bucket,
        clause="any[0]",
        raised_hand=False,
        agreement_version=1,
        qualified_at=datetime.now(UTC) - since,
        explanation=[],
        attributes=country,
    )

    await handle(database, mql, at=datetime.now(UTC) - assigned)
    return await found(database, handoff_id_of(mql.mql_id))


async def handle(database: Database, *events: Event, at: datetime | None = None) -> None:
    """What scoring said, in one batch, handled now or at another instant."""

    async def work(session: Session) -> None:
        now = await session.now()
        await route_leads([received(event) for event in events], session=session, now=at or now)

    await database.run(work)


async def found(database: Database, handoff_id: str) -> Handoff:
    handoff = await database.read(lambda session: handoffs.find(session, handoff_id))
    assert handoff is not None
    return handoff


def received(event: Event) -> Received[Event]:
    """The event as a handler gets it."""
    now = datetime.now(UTC)
    record = Record(event.topic, 0, 0, now, event.key.encode(), b"", ())
    return Received(event, f"event_{uuid7()}", "/tests", now, new_traceparent(), record)


async def emitted(database: Database) -> list[Event]:
    """Every event in the outbox, in order, as a reader would decode it."""
    rows = await database.read(lambda session: session.execute(OUTBOX))
    return [
        decode(
            Record(row.topic, 0, offset, row.created_at, bytes(row.key), bytes(row.value), unpack_headers(row.headers))
        ).event
        for offset, row in enumerate(rows)
    ]


async def emitted_types(database: Database) -> list[str]:
    return [event.type for event in await emitted(database)]
