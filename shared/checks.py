"""`baton check`: invariants of a running system, read from outside. No finding: nothing was lost, doubled or forgotten.

Each service adds its own in `services/X/checks.py`: `async def checks(session, *, grace)`, found by the entry points
`baton.checks`. Here stand those of the spine, and those that need two services.

`grace`: what is younger may be on its way through the log, or wait for a worker that looks now and then. What one
transaction keeps right has none: it holds at every moment, and a check sees a database at one (`at_one_moment`).

The work is bounded, however large the tables are: the newest rows, and as many from a random place on, all by an index.
So a table of up to `SLICE` rows is checked whole; of a larger one, each repetition sees another part.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Awaitable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Protocol

import msgspec
from sqlalchemy.engine import Row

from shared.db import Database, Session
from shared.events import OpportunityChanged
from shared.sql import Statement, sql
from shared.topics import dead_letter_topic

GRACE: Final = timedelta(seconds=60)
SLICE: Final = 5_000
SHOWN: Final = 20  # of one kind: who has thousands of findings needs the first ones
CRM: Final = "baton.crm.v1"

ONE_MOMENT = sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
LATE = sql(
    "SELECT event_id, topic, created_at FROM outbox"
    " WHERE published_at IS NULL AND parked_at IS NULL AND created_at < :before_at ORDER BY id LIMIT :shown"
)
PARKED = sql("SELECT event_id, topic, parked_cause FROM outbox WHERE parked_at IS NOT NULL ORDER BY id LIMIT :shown")
OLDEST = sql("SELECT published_at FROM outbox WHERE published_at IS NOT NULL ORDER BY published_at LIMIT 1")
PUBLISHED = sql(
    """
    SELECT event_id, topic, value, published_at FROM (
        SELECT event_id, topic, value, published_at FROM outbox
        WHERE published_at < :before_at ORDER BY published_at DESC LIMIT :size
    ) AS newest WHERE topic IN (SELECT wanted FROM {rows})
    UNION ALL
    SELECT event_id, topic, value, published_at FROM (
        SELECT event_id, topic, value, published_at FROM outbox
        WHERE published_at >= :from_at AND published_at < :before_at ORDER BY published_at LIMIT :size
    ) AS others WHERE topic IN (SELECT wanted FROM {rows})
    """,
    wanted="text",
)
DEAD = sql(
    "SELECT event_id FROM outbox WHERE topic = :topic AND event_id IN (SELECT wanted FROM {rows})", wanted="text"
)
MQLS = sql(
    """
    SELECT mql_id FROM (
        SELECT mql_id FROM mqls WHERE created_at < :before_at ORDER BY created_at DESC, mql_id DESC LIMIT :size
    ) AS newest
    UNION
    SELECT mql_id FROM (
        SELECT mql_id, created_at FROM mqls WHERE mql_id >= :start ORDER BY mql_id LIMIT :size
    ) AS others WHERE created_at < :before_at
    """
)
HANDOFFS = sql(
    """
    SELECT mql_id FROM (
        SELECT mql_id FROM handoffs WHERE opened_at < :before_at ORDER BY opened_at DESC, handoff_id DESC LIMIT :size
    ) AS newest
    UNION
    SELECT mql_id FROM (
        SELECT mql_id, opened_at FROM handoffs WHERE handoff_id >= :start ORDER BY handoff_id LIMIT :size
    ) AS others WHERE opened_at < :before_at
    """
)
HANDED_OFF = sql("SELECT mql_id FROM handoffs WHERE mql_id IN (SELECT wanted FROM {rows})", wanted="text")
QUALIFIED = sql("SELECT mql_id FROM mqls WHERE mql_id IN (SELECT wanted FROM {rows})", wanted="text")
KEPT = sql(
    """
    SELECT touch_id AS event_id FROM touches WHERE touch_id IN (SELECT event_id FROM {rows})
    UNION
    SELECT rows.event_id FROM {rows} JOIN opportunities
        ON opportunities.source = rows.source AND opportunities.opportunity_id = rows.opportunity_id
    WHERE opportunities.occurred_at > rows.occurred_at
        OR (opportunities.occurred_at = rows.occurred_at AND opportunities.received_at >= rows.received_at)
    """,
    event_id="text",
    source="text",
    opportunity_id="text",
    occurred_at="timestamptz",
    received_at="timestamptz",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it must be. `invariant`: its number, e.g. I8; `subject`: an id, never personal data."""

    invariant: str
    subject: str
    detail: str


class Check(Protocol):
    """What a service's database must hold; at most `SHOWN` findings of a kind."""

    def __call__(self, session: Session, /, *, grace: timedelta = GRACE) -> Awaitable[list[Finding]]: ...


async def service_checks(session: Session, *, check: Check, grace: timedelta) -> list[Finding]:
    """I14, and what the service adds, all at one moment. First in its transaction."""
    await at_one_moment(session)
    return [*await outbox_checks(session, grace=grace), *await check(session, grace=grace)]


async def outbox_checks(session: Session, *, grace: timedelta) -> list[Finding]:
    """I14: nothing waits in the outbox longer than `grace`, nothing is parked. Reads what waits and what is parked."""
    before = await session.now() - grace
    late = await session.execute(LATE, before_at=before, shown=SHOWN)
    parked = await session.execute(PARKED, shown=SHOWN)
    return [
        *(Finding("I14", row.event_id, f"unpublished since {row.created_at.isoformat()}, {row.topic}") for row in late),
        *(Finding("I14", row.event_id, f"parked: {row.parked_cause}, {row.topic}") for row in parked),
    ]


async def handoff_checks(scoring: Database, handoff: Database, *, grace: timedelta) -> list[Finding]:
    """I8: every MQL has its handoff, every handoff its MQL (a second one the unique key forbids). Two slices each way.

    Handoffs are read before the MQLs that must be there, and MQLs before the handoffs: what comes later is no finding.
    """
    opened = await handoff.read(partial(_ids, statement=HANDOFFS, start=some_key("handoff_"), grace=grace))
    qualified = await scoring.read(partial(_ids, statement=MQLS, start=some_key("mql_"), grace=grace))
    without_mql = opened - await scoring.read(partial(_known, statement=QUALIFIED, mql_ids=opened))
    without_handoff = qualified - await handoff.read(partial(_known, statement=HANDED_OFF, mql_ids=qualified))
    return [
        *(Finding("I8", mql_id, "this MQL has no handoff") for mql_id in sorted(without_handoff)[:SHOWN]),
        *(Finding("I8", mql_id, "there is a handoff, and no such MQL") for mql_id in sorted(without_mql)[:SHOWN]),
    ]


async def sales_checks(scoring: Database, handoff: Database, *, grace: timedelta) -> list[Finding]:
    """I2, where scoring's part ends: what sales did is in handoff's books, or dead-lettered there.

    Of what scoring's outbox still holds: two slices of what was published. A deal is in the books if they say of it
    what was told, or something later.
    """
    told = {row.event_id: row for row in await scoring.read(partial(_told_to_handoff, grace=grace))}
    missing = set(told) - await handoff.read(partial(_kept, told=list(told.values()))) if told else set()
    return [
        Finding("I2", event_id, f"published {told[event_id].published_at.isoformat()}, and handoff knows nothing of it")
        for event_id in sorted(missing)[:SHOWN]
    ]


async def at_one_moment(session: Session) -> None:
    """Let all statements of this transaction see one moment, as SQLite does anyway. Before the first of them."""
    if session.dialect == "postgresql":
        await session.execute(ONE_MOMENT)


async def published(session: Session, topics: Iterable[str], *, before: datetime) -> list[Row[Any]]:
    """What was published to these topics, out of the newest rows and of those from a random moment on."""
    oldest = await oldest_published(session)
    if oldest is None:
        return []
    rows = [(topic,) for topic in topics]
    return await session.execute(PUBLISHED, rows, before_at=before, from_at=some_moment(oldest, before), size=SLICE)


async def oldest_published(session: Session) -> datetime | None:
    """When the oldest row was published that the relay has not pruned: no row written since then is missing."""
    row = await session.first(OLDEST)
    return row.published_at if row else None


async def dead_letters(session: Session, event_ids: Collection[str]) -> set[str]:
    """Those of these events that this service dead-lettered. Reads the whole outbox: for what is suspected only."""
    if not event_ids:
        return set()
    rows = [(event_id,) for event_id in sorted(event_ids)]
    return {row.event_id for row in await session.execute(DEAD, rows, topic=dead_letter_topic(session.service))}


def some_key(prefix: str) -> str:
    """A random place among keys that are hashes."""
    return f"{prefix}{secrets.token_hex(4)}"


def some_moment(since: datetime, before: datetime) -> datetime:
    """A random moment between two."""
    return since + max(before - since, timedelta()) * random.random()


async def _ids(session: Session, *, statement: Statement, start: str, grace: timedelta) -> set[str]:
    before = await session.now() - grace
    rows = await session.execute(statement, before_at=before, start=start, size=SLICE)
    return {row.mql_id for row in rows}


async def _known(session: Session, *, statement: Statement, mql_ids: Collection[str]) -> set[str]:
    rows = await session.execute(statement, [(mql_id,) for mql_id in sorted(mql_ids)]) if mql_ids else []
    return {row.mql_id for row in rows}


async def _told_to_handoff(session: Session, *, grace: timedelta) -> list[Row[Any]]:
    await at_one_moment(session)
    return await published(session, [CRM], before=await session.now() - grace)


async def _kept(session: Session, *, told: Sequence[Row[Any]]) -> set[str]:
    """Those of these events that are in handoff's books, or dead there."""
    await at_one_moment(session)
    kept = {row.event_id for row in await session.execute(KEPT, [_told(row) for row in told])}
    return kept | await dead_letters(session, {row.event_id for row in told} - kept)


def _told(row: Row[Any]) -> tuple[str, str | None, str | None, datetime | None, datetime | None]:
    """A touch is known by its event's id, a deal by what was told of it."""
    if not row.event_id.startswith("opp_"):
        return row.event_id, None, None, None, None
    deal = msgspec.json.decode(bytes(row.value), type=OpportunityChanged)
    return row.event_id, deal.source, deal.opportunity_id, deal.occurred_at, deal.received_at
