"""A scorer without a log: events go in as their topic's handler gets them, and what it told is read from its outbox."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

from services.scoring.handlers import HANDLERS
from services.scoring.refold import Pace, refold_some
from shared.agreement import sha256
from shared.bus import Message, Record
from shared.db import Database, Session
from shared.envelope import Received, decode, encode
from shared.events import (
    AgreementPublished,
    Event,
    HandoffMerged,
    HandoffRejected,
    IdentityMerged,
    LeadScored,
    MqlQualified,
)
from shared.outbox import unpack_headers
from shared.sql import sql
from tests.scoring.leads import AGREEMENT, NOON

E = TypeVar("E", bound=Event)
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"

TOLD = sql("SELECT topic, key, value, headers, created_at FROM outbox ORDER BY id")
TALLIES = sql("SELECT lead_id, scorecard, tally, score, dimensions, bucket, cycle FROM lead_scores ORDER BY lead_id")


def received(event: Event, offset: int) -> Received[Event]:
    """The event as the consumer hands it on."""
    message = encode(event, event_id=f"event-{offset}", source="/baton/test", time=NOON, traceparent=TRACE)
    return decode(_record(message, offset))


def _record(message: Message, offset: int) -> Record:
    return Record(message.topic, 0, offset, NOON, message.key, message.value, message.headers)


@dataclass
class Scorer:
    database: Database
    offsets: itertools.count[int] = field(default_factory=itertools.count)

    async def take(self, *events: Event) -> None:
        """One batch: all of one topic, in one transaction."""
        await self.settle([received(event, next(self.offsets)) for event in events])

    async def settle(self, records: Sequence[Received[Event]]) -> None:
        (topic,) = {record.event.topic for record in records}

        async def work(session: Session) -> None:
            await HANDLERS[topic](records, session=session, now=await session.now())

        await self.database.run(work)

    async def publish(self, version: int = 1, content: str = AGREEMENT) -> None:
        """A version of the agreement, in force since long ago."""
        since = NOON - timedelta(days=1000)
        await self.take(
            AgreementPublished(
                agreement="acme",
                version=version,
                sha256=sha256(content),
                content=content,
                signatures=[],
                published_at=since,
                effective_from=since,
            )
        )

    async def refold(self) -> int:
        return await self.database.run(lambda session: refold_some(session, Pace()))

    async def told(self, kind: type[E]) -> list[E]:
        """What it told of one type, in order."""
        rows = await self.database.read(lambda session: session.execute(TOLD))
        messages = [Message(row.topic, bytes(row.key), bytes(row.value), unpack_headers(row.headers)) for row in rows]
        events = [decode(_record(message, offset)).event for offset, message in enumerate(messages)]
        return [event for event in events if isinstance(event, kind)]

    async def qualified(self) -> list[tuple[str, int]]:
        return [(event.lead_id, event.cycle) for event in await self.told(MqlQualified)]

    async def scores(self) -> dict[str, tuple[object, ...]]:
        """What is stored of each lead's score."""
        rows = await self.database.read(lambda session: session.execute(TALLIES))
        return {row.lead_id: tuple(row)[1:] for row in rows}

    async def last_score(self, lead_id: str) -> LeadScored:
        return [event for event in await self.told(LeadScored) if event.lead_id == lead_id][-1]


def merged(absorbed: str, survivor: str, *, weak: bool = False) -> IdentityMerged:
    return IdentityMerged(
        absorbed_id=absorbed,
        survivor_id=survivor,
        evidence="weak" if weak else "strong",
        cause="act_x",
        received_at=NOON,
    )


def rejected(mql: MqlQualified, after: timedelta) -> HandoffRejected:
    """Sales' answer, so long after noon."""
    return HandoffRejected(**_handoff(mql, after), ends_cycle=True, ended_at=NOON + after)  # type: ignore[arg-type]


def gave_way(mql: MqlQualified, after: timedelta) -> HandoffMerged:
    return HandoffMerged(**_handoff(mql, after))  # type: ignore[arg-type]


def _handoff(mql: MqlQualified, after: timedelta) -> dict[str, object]:
    return {
        "handoff_id": mql.mql_id.replace("mql_", "handoff_"),
        "mql_id": mql.mql_id,
        "opened_for": mql.lead_id,
        "lead_id": mql.lead_id,
        "product": mql.product,
        "motion": mql.motion,
        "cycle": mql.cycle,
        "agreement_version": 1,
        "version": 2,
        "state": "rejected",
        "at": NOON + after,
        "actor": "ana",
        "cause": "test",
    }
