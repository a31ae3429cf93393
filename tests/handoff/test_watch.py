"""Due clocks ring once, whoever looks, and the router assigns what they ask for; on both databases."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from structlog.testing import capture_logs

from services.handoff.case import Change, Handoff
from services.handoff.checks import checks
from services.handoff.handlers import record_sales, route_leads
from services.handoff.lifecycle import Action, IllegalTransition, State
from services.handoff.store import handoffs
from services.handoff.transitions import lock_handoff, transition
from services.handoff.watch import RING, Step, carry_out, one_round, watch
from shared.db import Database, Session, StatementTimeout
from shared.events import HandoffEvent, HandoffReassigned, SlaBreached, TouchRecorded
from shared.outbox import unpack_headers
from shared.sql import Statement, sql
from tests.handoff.support import emitted
from tests.handoff.terms import TRACEPARENT, handle, handoff_id, minutes, mql, publish
from tests.support import Databases

pytestmark = pytest.mark.slow

WAIT_NO_LONGER = sql("UPDATE handoffs SET route_at = :long_ago_at WHERE state = 'unrouted' AND route_cause = 'unroute'")

WITHOUT_AGREEMENT = sql("UPDATE handoffs SET agreement_version = 99 WHERE handoff_id = :handoff_id")
OF_NEWER_CODE = sql("UPDATE handoffs SET state = 'dreaming' WHERE handoff_id = :handoff_id")
MENDED = sql(
    """
    UPDATE handoffs SET agreement_version = 1, state = (
        SELECT to_state FROM handoff_history AS last
        WHERE last.handoff_id = handoffs.handoff_id AND last.version = handoffs.version
    ) WHERE handoff_id = :handoff_id
    """
)
ASSIGNED_LONG_AGO = sql(
    """
    UPDATE handoffs SET assigned_at = :long_ago_at, wake_at = :long_ago_at
    WHERE handoff_id IN (SELECT handoff_id FROM clocks WHERE state = 'open')
    """
)
DUE_LONG_AGO = sql(
    """
    UPDATE clocks SET started_at = :long_ago_at, due_at = :long_ago_at, wake_at = :long_ago_at WHERE state = 'open'
    """
)
ALARMS = sql("SELECT wake_at, route_at FROM handoffs WHERE handoff_id = :handoff_id")
RING_NOW = sql("UPDATE handoffs SET wake_at = :at WHERE handoff_id = :handoff_id")
ROUTE_NOW = sql("UPDATE handoffs SET route_at = :at WHERE handoff_id = :handoff_id")
HEADERS = sql("SELECT headers FROM outbox")
SHARES = sql("SELECT rep, debt, assigned FROM shares ORDER BY rep")


@pytest.fixture
async def database(databases: Databases) -> AsyncIterator[Database]:
    """A handoff service that has an agreement; whatever the test does, its books must be right afterwards."""
    database = databases.open("handoff")
    await publish(database)
    yield database
    assert await database.read(checks) == []


def overdue() -> datetime:
    """Long enough ago that a hot lead's first touch is late, and its rep's clock not."""
    return datetime.now(UTC) - minutes(11)


async def found(database: Database, lead_id: str = "lead_1") -> Handoff:
    handoff = await database.read(lambda session: handoffs.find(session, handoff_id(lead_id)))
    assert handoff is not None
    return handoff


async def types(database: Database) -> list[str]:
    return [event.type for event in await emitted(database)]


async def rounds(database: Database) -> None:
    while await one_round(database):
        pass


async def test_a_breach_tells_the_manager_and_the_router_gives_the_lead_to_another(database: Database) -> None:
    await handle(database, route_leads, [mql(at=overdue())])
    await rounds(database)
    assert (await types(database))[2:] == ["sla.breached", "handoff.expired", "handoff.reassigned"]
    handoff = await found(database)
    assert (handoff.state, handoff.owner, handoff.reassigns) == (State.ASSIGNED, "bo", 1)
    lead_clock = next(clock for clock in handoff.clocks if clock.subject == "lead")
    assert lead_clock.is_awaited  # the lead's own clock goes on
    await rounds(database)
    assert len(await types(database)) == 5


async def test_what_a_clock_causes_belongs_to_the_trace_of_its_lead(database: Database) -> None:
    await handle(database, route_leads, [mql(at=overdue())])
    await rounds(database)
    rows = await database.read(lambda session: session.execute(HEADERS))
    traces = {dict(unpack_headers(row.headers))["traceparent"].decode() for row in rows}
    assert (len(rows), traces) == (5, {TRACEPARENT})


async def test_a_touch_after_the_deadline_and_before_the_worker_records_the_breach_itself(database: Database) -> None:
    await handle(database, route_leads, [mql(at=overdue())])
    now = datetime.now(UTC)
    call = TouchRecorded(
        lead_id="lead_1",
        touch_id="touch_1",
        kind="call_logged",
        by="ana@acme.example",
        source="hubspot",
        source_id="1",
        occurred_at=now,
        received_at=now,
    )
    await handle(database, record_sales, [call])
    await rounds(database)
    handoff = await found(database)
    assert (handoff.state, handoff.owner) == (State.ACCEPTED, "ana")
    said = (await types(database))[2:]
    assert said == ["handoff.accepted", "sla.met", "sla.breached", "handoff.touched", "sla.met"]


async def test_after_the_agreed_reassignments_the_last_resort_keeps_it(database: Database) -> None:
    event = mql(at=datetime.now(UTC), bucket="warm", attributes={"segment": "quick"})
    await handle(database, route_leads, [event])
    owners = []
    for _ in range(4):
        owners.append((await found(database)).owner)
        await database.run(assigned_long_ago)
        await rounds(database)
    assert owners == ["ana", "bo", "sam@acme.example", "sam@acme.example"]
    breaches = [event for event in await emitted(database) if isinstance(event, SlaBreached)]
    assert [(event.owner, event.manager) for event in breaches] == [
        ("ana", "sam@acme.example"),
        ("bo", "sam@acme.example"),
        ("sam@acme.example", "sam@acme.example"),
    ]


async def assigned_long_ago(session: Session) -> None:
    """As if whoever has it had got it so long ago that his clock is due."""
    long_ago = overdue()
    await session.execute(ASSIGNED_LONG_AGO, long_ago_at=long_ago)
    await session.execute(DUE_LONG_AGO, long_ago_at=long_ago)


async def test_what_nobody_could_take_goes_to_the_last_resort_in_the_end(database: Database) -> None:
    await handle(database, route_leads, [mql(at=datetime.now(UTC), product="sensors")])
    await rounds(database)
    assert await types(database) == ["handoff.unrouted", "nurture.suspended"]
    await database.run(lambda session: session.execute(WAIT_NO_LONGER, long_ago_at=overdue()))
    await rounds(database)
    assert (await types(database))[2:] == ["handoff.assigned"]


async def test_a_logistics_reason_gives_the_share_back_and_the_lead_to_another(database: Database) -> None:
    await handle(database, route_leads, [mql(at=datetime.now(UTC))])
    await database.run(lambda session: changed_by(session, Action.REJECT, reason="wrong_territory"))
    await rounds(database)
    assert (await found(database)).owner == "bo"
    shares = await database.read(lambda session: session.execute(SHARES))
    assert [(row.rep, row.debt, row.assigned) for row in shares] == [("ana", 0, 0), ("bo", 0.5, 1), ("chi", -0.5, 0)]


async def changed_by(session: Session, action: Action, reason: str | None = None, owner: str = "ana") -> None:
    handoff = await lock_handoff(session, handoff_id("lead_1"))
    assert handoff is not None
    await transition(session, handoff, Change(action, owner, "test", reason=reason), now=await session.now())


async def test_five_hundred_clocks_due_at_once_ring_once_each_with_two_workers(
    database: Database, databases: Databases
) -> None:
    await handle(database, route_leads, [mql(f"lead_{number}", at=overdue()) for number in range(500)])
    second = databases.open("handoff")
    await asyncio.gather(*(ring_all(worker) for worker in (database, second)))
    await asyncio.gather(rounds(database), rounds(second))
    events = await emitted(database)
    breaches = Counter(event.clock_id for event in events if isinstance(event, SlaBreached))
    assert (len(breaches), set(breaches.values())) == (500, {1})
    moved = Counter(event.type for event in events if isinstance(event, HandoffEvent))
    assert moved == {"handoff.assigned": 500, "handoff.expired": 500, "handoff.reassigned": 500}


async def ring_all(database: Database) -> None:
    while await carry_out(database, RING, 50):
        pass


@pytest.mark.parametrize(
    "spoilt", [pytest.param(WITHOUT_AGREEMENT, id="no-agreement"), pytest.param(OF_NEWER_CODE, id="unknown-state")]
)
@pytest.mark.parametrize("alarm", ["wake_at", "route_at"])
async def test_a_handoff_that_fails_is_put_off_and_the_others_go_on(
    database: Database, spoilt: Statement, alarm: Literal["wake_at", "route_at"]
) -> None:
    await handle(database, route_leads, [mql(f"lead_{number}", at=overdue()) for number in range(20)])
    if alarm == "route_at":
        await carry_out(database, RING)
    await changed_row(database, spoilt)
    with capture_logs() as logs:
        await rounds(database)
    said = Counter(event.handoff_id for event in await emitted(database) if isinstance(event, HandoffReassigned))
    assert said == {handoff_id(f"lead_{number}"): 1 for number in range(20) if number != 7}
    assert [(line["event"], line["handoff_id"]) for line in logs] == [("clocks.put_off", handoff_id("lead_7"))]
    (row,) = await database.read(lambda session: session.execute(ALARMS, handoff_id=handoff_id("lead_7")))
    assert timedelta(seconds=50) < getattr(row, alarm) - datetime.now(UTC) <= timedelta(minutes=1)
    await changed_row(database, MENDED)
    await changed_row(database, RING_NOW if alarm == "wake_at" else ROUTE_NOW)
    await rounds(database)
    assert (await found(database, "lead_7")).reassigns == 1


async def changed_row(database: Database, statement: Statement) -> None:
    await database.run(lambda session: session.execute(statement, handoff_id=handoff_id("lead_7"), at=overdue()))


async def test_what_takes_too_long_at_once_is_done_in_smaller_parts(database: Database) -> None:
    await handle(database, route_leads, [mql(f"lead_{number}", at=overdue()) for number in range(20)])
    sizes: list[int] = []

    async def slow(session: Session, handoff_ids: list[str]) -> None:
        sizes.append(len(handoff_ids))
        if len(handoff_ids) > 5:
            raise StatementTimeout("canceling statement due to statement timeout")
        await RING.work(session, handoff_ids)

    assert await carry_out(database, Step("ring", RING.claim, slow, "wake_at"), 20) == 20
    assert sizes == [20, 10, 5, 5, 5, 5]
    await rounds(database)


async def test_an_accept_and_a_breach_at_the_same_instant_never_both_win(database: Database) -> None:
    for number in range(20):
        lead_id = f"lead_{number}"
        await handle(database, route_leads, [mql(lead_id, at=overdue())])
        await asyncio.gather(accept_unless_gone(database, lead_id), one_round(database))
    await rounds(database)
    for number in range(20):
        handoff = await found(database, f"lead_{number}")
        assert await history(database, handoff.handoff_id) in (
            ["handoff.assigned", "handoff.expired", "handoff.reassigned"],
            ["handoff.assigned", "handoff.accepted", "handoff.expired", "handoff.reassigned"],
        )


async def history(database: Database, wanted: str) -> list[str]:
    return [line.type for line in await database.read(lambda session: handoffs.history(session, wanted))]


async def accept_unless_gone(database: Database, lead_id: str) -> None:
    """The owner accepts, unless the lead was taken from him in this very moment."""

    async def work(session: Session) -> None:
        handoff = await lock_handoff(session, handoff_id(lead_id))
        assert handoff is not None
        owner = handoff.owner or "nobody"
        await transition(session, handoff, Change(Action.ACCEPT, owner, "test"), now=await session.now())

    with suppress(IllegalTransition):
        await database.run(work)


async def test_the_watch_runs_until_it_is_stopped(database: Database) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(watch(database, stop))
    await handle(database, route_leads, [mql(at=overdue())])
    while "handoff.reassigned" not in await types(database):
        await asyncio.sleep(0.05)
    stop.set()
    await asyncio.wait_for(running, 2)
