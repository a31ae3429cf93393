"""What handoff does with MQLs, merges, retractions, touches and deals, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy.engine import Row

from services.handoff.checks import checks
from services.handoff.handlers import record_sales, route_leads
from services.handoff.lifecycle import State
from services.handoff.store import handoffs
from shared.db import Database
from shared.events import (
    HandoffEvent,
    HandoffUnrouted,
    LeadErased,
    LeadMerged,
    MqlRetractionRequested,
    NurtureEvent,
    OpportunityChanged,
    SlaEvent,
    TouchRecorded,
)
from shared.outcomes import RetryLater
from shared.sql import sql
from tests.handoff.support import emitted
from tests.handoff.terms import handle, handoff_id, minutes, mql, mql_id, publish, received
from tests.support import Databases

pytestmark = pytest.mark.slow

SHARES = sql("SELECT rep, debt, assigned FROM shares ORDER BY rep")
TOUCHES = sql("SELECT touch_id, lead_id, came_in_under FROM touches ORDER BY touch_id")
DEALS = sql("SELECT opportunity_id, stage, amount, handoff_id, lead_id FROM opportunities ORDER BY opportunity_id")


@pytest.fixture
async def database(databases: Databases) -> AsyncIterator[Database]:
    """A handoff service that has an agreement; whatever the test does, its books must be right afterwards."""
    database = databases.open("handoff")
    await publish(database)
    yield database
    assert await database.read(checks) == []


def touched(lead_id: str, by: str, at: datetime, touch_id: str = "touch_1") -> TouchRecorded:
    return TouchRecorded(
        lead_id=lead_id,
        touch_id=touch_id,
        kind="call_logged",
        by=by,
        source="hubspot",
        source_id=touch_id,
        occurred_at=at,
        received_at=max(at, recently()),
    )


def deal(lead_id: str, stage: str, at: datetime, *, opportunity_id: str = "deal_1", **other: Any) -> OpportunityChanged:
    return OpportunityChanged(
        lead_id=lead_id,
        opportunity_id=opportunity_id,
        stage=stage,
        source="hubspot",
        source_id=f"{stage}-{at.isoformat()}",
        occurred_at=at,
        received_at=at,
        **other,
    )


def recently() -> datetime:
    """Just now by this machine's clock, which is the databases' in tests."""
    return datetime.now(UTC) - minutes(0.5)


async def rows(database: Database, statement: Any) -> list[Row[Any]]:
    return await database.read(lambda session: session.execute(statement))


async def state_of(database: Database, lead_id: str = "lead_1") -> tuple[State | None, str | None, str]:
    handoff = await database.read(lambda session: handoffs.find(session, handoff_id(lead_id)))
    assert handoff is not None
    return handoff.state, handoff.owner, handoff.lead_id


async def types(database: Database) -> list[str]:
    return [event.type for event in await emitted(database)]


async def test_an_mql_becomes_one_handoff_however_often_it_comes(database: Database) -> None:
    event = mql(at=recently())
    await handle(database, route_leads, [event, event])
    await handle(database, route_leads, [event])
    assert await types(database) == ["handoff.assigned", "nurture.suspended"]
    assert await state_of(database) == (State.ASSIGNED, "ana", "lead_1")
    assert [(row.rep, row.assigned) for row in await rows(database, SHARES)] == [("ana", 1), ("bo", 0), ("chi", 0)]


async def test_a_batch_is_shared_fairly_in_a_constant_number_of_statements(database: Database) -> None:
    counts = []
    for size in (2, 10, 100):  # the first one also reads the agreement, which this process may not have met
        events = [received(mql(f"lead_{size}_{number}", at=recently())) for number in range(size)]
        counts.append(await statements(database, events))
    assert counts[1] == counts[2] <= 9
    assert [(row.rep, row.assigned) for row in await rows(database, SHARES)] == [("ana", 56), ("bo", 28), ("chi", 28)]


async def statements(database: Database, events: list[Any]) -> int:
    count = 0

    async def work(session: Any) -> None:
        nonlocal count
        now, execute = await session.now(), session.execute

        async def counted(*positional: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            return await execute(*positional, **named)

        session.execute = counted
        await route_leads(events, session=session, now=now)

    await database.run(work)
    return count + 1  # the outbox's, before the commit


async def test_an_mql_under_a_version_that_is_not_here_yet_waits(database: Database) -> None:
    with pytest.raises(RetryLater, match="version 2"):
        await handle(database, route_leads, [mql(agreement_version=2)])


async def test_a_touch_that_arrives_before_its_handoff_exists_meets_the_clock(database: Database) -> None:
    at = recently()
    await handle(database, record_sales, [touched("lead_1", "51", at + minutes(0.2))])
    await handle(database, route_leads, [mql(at=at)])
    assert (await state_of(database))[:2] == (State.ACCEPTED, "ana")
    met = [event for event in await emitted(database) if isinstance(event, SlaEvent)]
    assert [(event.milestone, event.type) for event in met] == [("accept", "sla.met"), ("first_touch", "sla.met")]
    assert met[1].at == at + minutes(0.2)


async def test_a_touch_from_before_the_clocks_start_is_stored_and_meets_nothing(database: Database) -> None:
    at = recently()
    await handle(database, record_sales, [touched("lead_1", "ana", at - minutes(5))])
    await handle(database, route_leads, [mql(at=at)])
    assert (await state_of(database))[0] is State.ASSIGNED


async def test_the_owners_call_from_the_crm_is_acceptance_and_counts_once(database: Database) -> None:
    await handle(database, route_leads, [mql(at=recently() - minutes(1))])
    call = touched("lead_1", "51", recently())
    await handle(database, record_sales, [call, call])
    await handle(database, record_sales, [call])
    handoff = await database.read(lambda session: handoffs.find(session, handoff_id("lead_1")))
    assert handoff is not None
    assert (handoff.state, handoff.attempts, handoff.version) == (State.ACCEPTED, 1, 3)
    assert (await types(database)).count("handoff.touched") == 1


async def test_a_merge_brings_the_touch_that_the_other_lead_had(database: Database) -> None:
    at = recently()
    await handle(database, record_sales, [touched("lead_2", "ana", at)])
    await handle(database, route_leads, [mql("lead_1", at=at - minutes(1))])
    assert (await state_of(database))[0] is State.ASSIGNED
    merged = LeadMerged(absorbed_id="lead_2", survivor_id="lead_1", merged_at=at)
    await handle(database, route_leads, [merged, merged])
    assert (await state_of(database))[0] is State.ACCEPTED
    stored = [(row.lead_id, row.came_in_under) for row in await rows(database, TOUCHES)]
    assert stored == [("lead_1", "lead_2")]


async def test_after_a_merge_one_handoff_gives_way_and_ends_no_cycle(database: Database) -> None:
    at = recently()
    await handle(database, route_leads, [mql("lead_1", at=at - minutes(1)), mql("lead_2", at=at - minutes(2))])
    await handle(database, record_sales, [touched("lead_1", "ana", at)])
    await handle(database, route_leads, [LeadMerged(absorbed_id="lead_1", survivor_id="lead_2", merged_at=at)])
    assert await state_of(database, "lead_1") == (State.ACCEPTED, "ana", "lead_2")
    assert await state_of(database, "lead_2") == (State.MERGED, "bo", "lead_2")
    last = (await emitted(database))[-1]
    assert isinstance(last, HandoffEvent)
    assert (last.type, last.opened_for, last.ends_cycle) == ("handoff.merged", "lead_2", False)


async def test_a_merge_brings_the_deal_that_the_other_lead_had(database: Database) -> None:
    at = recently()
    await handle(database, route_leads, [mql("lead_1", at=at - minutes(1))])
    await handle(database, record_sales, [deal("lead_2", "closedwon", at)])
    assert (await state_of(database))[0] is State.ASSIGNED
    await handle(database, route_leads, [LeadMerged(absorbed_id="lead_2", survivor_id="lead_1", merged_at=at)])
    assert (await state_of(database))[0] is State.WON


async def test_the_deal_of_a_handoff_that_gave_way_moves_the_one_that_stays(database: Database) -> None:
    at = recently()
    await handle(database, route_leads, [mql("lead_1", at=at - minutes(2)), mql("lead_2", at=at - minutes(1))])
    await handle(database, record_sales, [touched("lead_1", "ana", at), deal("lead_2", "presentationscheduled", at)])
    await handle(database, record_sales, [deal("lead_1", "presentationscheduled", at, opportunity_id="deal_2")])
    await handle(database, route_leads, [LeadMerged(absorbed_id="lead_2", survivor_id="lead_1", merged_at=at)])
    assert (await state_of(database, "lead_2"))[0] is State.MERGED
    await handle(database, record_sales, [deal("lead_2", "closedwon", at + minutes(0.1))])
    assert (await state_of(database, "lead_1"))[0] is State.WON


async def test_a_retraction_asked_twice_at_once_is_answered_once(database: Database) -> None:
    at = recently()
    await handle(database, route_leads, [mql("lead_1", at=at)])
    await handle(database, record_sales, [touched("lead_1", "ana", at)])
    asked = received(MqlRetractionRequested(lead_id="lead_1", mql_id=mql_id("lead_1"), reason="fraud", requested_at=at))
    await handle(database, route_leads, [asked, asked])
    assert (await types(database)).count("handoff.retraction_refused") == 1


async def test_what_comes_under_an_absorbed_id_reaches_the_survivor_and_keeps_its_key(database: Database) -> None:
    at = recently()
    await handle(database, route_leads, [mql("lead_1", at=at)])
    await handle(database, route_leads, [LeadMerged(absorbed_id="lead_1", survivor_id="lead_2", merged_at=at)])
    await handle(database, record_sales, [touched("lead_1", "ana", at)])
    assert await state_of(database, "lead_1") == (State.ACCEPTED, "ana", "lead_2")
    last = [event for event in await emitted(database) if isinstance(event, HandoffEvent)][-1]
    assert (last.key, last.lead_id) == ("lead_1", "lead_2")
    await handle(database, route_leads, [LeadMerged(absorbed_id="lead_2", survivor_id="lead_3", merged_at=at)])
    await handle(database, record_sales, [touched("lead_1", "ana", at, "touch_2")])
    assert [row.lead_id for row in await rows(database, TOUCHES)] == ["lead_3", "lead_3"]


async def test_an_mql_is_taken_back_only_while_nobody_of_sales_did_anything(database: Database) -> None:
    at = recently()
    await handle(database, route_leads, [mql("lead_1", at=at), mql("lead_2", at=at)])
    await handle(database, record_sales, [touched("lead_1", "ana", at)])
    asked = [
        received(MqlRetractionRequested(lead_id=lead, mql_id=mql_id(lead), reason="fraud", requested_at=at))
        for lead in ("lead_1", "lead_2", "lead_3")
    ]
    await handle(database, route_leads, asked)
    await handle(database, route_leads, asked)
    answers = [event for event in await emitted(database) if "retract" in event.type]
    assert [(event.type, event.key) for event in answers] == [
        ("handoff.retraction_refused", "lead_1"),
        ("handoff.retracted", "lead_2"),
    ]
    assert (await types(database)).count("nurture.resumed") == 1


async def test_the_stages_of_a_deal_move_the_handoff_as_the_agreement_maps_them(database: Database) -> None:
    at = recently()
    await handle(database, route_leads, [mql(at=at - minutes(1))])
    for number, stage in enumerate(["brainstorming", "qualifiedtobuy", "presentationscheduled", "closedwon"]):
        await handle(database, record_sales, [deal("lead_1", stage, at + minutes(number / 60), amount=Decimal("9.90"))])
    await handle(database, record_sales, [deal("lead_1", "qualifiedtobuy", at)])
    assert (await state_of(database))[0] is State.WON
    moved = [event.type for event in await emitted(database) if isinstance(event, HandoffEvent | NurtureEvent)]
    assert moved[2:] == ["handoff.qualified", "handoff.opportunity", "handoff.won", "nurture.resumed"]
    (row,) = await rows(database, DEALS)
    assert (row.stage, row.amount, row.handoff_id) == ("closedwon", "9.90", handoff_id("lead_1"))


async def test_a_deal_told_under_another_contact_moves_the_handoff_it_belongs_to(database: Database) -> None:
    at = recently()
    await handle(database, route_leads, [mql("lead_1", at=at - minutes(1)), mql("lead_2", at=at - minutes(1))])
    await handle(database, record_sales, [deal("lead_1", "presentationscheduled", at)])
    for number, stage in enumerate(["brainstorming", "closedwon"], start=1):
        await handle(database, record_sales, [deal("lead_3", stage, at + minutes(number / 60))])
    assert (await state_of(database, "lead_1"))[0] is State.WON
    assert (await state_of(database, "lead_2"))[0] is State.ASSIGNED
    (row,) = await rows(database, DEALS)
    assert (row.stage, row.handoff_id, row.lead_id) == ("closedwon", handoff_id("lead_1"), "lead_3")


async def test_a_deal_told_under_two_contacts_at_once_moves_one_handoff(database: Database) -> None:
    at = recently()
    for round in range(10):
        both = [f"lead_{round}_{side}" for side in ("a", "b")]
        await handle(database, route_leads, [mql(lead_id, at=at - minutes(1)) for lead_id in both])
        told = [deal(lead_id, "closedwon", at, opportunity_id=f"deal_{round}") for lead_id in both]
        await asyncio.gather(*(handle(database, record_sales, [event]) for event in told))
        states = [(await state_of(database, lead_id))[0] for lead_id in both]
        assert sorted(filter(None, states)) == [State.ASSIGNED, State.WON]


async def test_what_is_told_of_a_deal_at_once_leaves_the_latest(database: Database) -> None:
    at = recently()
    await handle(database, route_leads, [mql(at=at - minutes(1))])
    await handle(database, record_sales, [deal("lead_1", "qualifiedtobuy", at)])
    later = [deal(f"lead_{number}", "brainstorming", at + minutes(number / 60)) for number in range(2, 8)]
    await asyncio.gather(*(handle(database, record_sales, [event]) for event in later))
    (row,) = await rows(database, DEALS)
    assert (row.lead_id, row.handoff_id) == ("lead_7", handoff_id("lead_1"))


async def test_a_deal_told_before_its_mql_is_linked_when_the_handoff_opens(database: Database) -> None:
    at = recently()
    await handle(database, record_sales, [deal("lead_1", "closedlost", at, reason="competitor")])
    await handle(database, route_leads, [mql(at=at - minutes(1))])
    assert (await state_of(database))[0] is State.LOST
    assert (await types(database))[-1] == "nurture.requested"


async def test_a_deal_without_a_handoff_is_kept(database: Database) -> None:
    await handle(database, record_sales, [deal("lead_9", "closedwon", recently())])
    assert [(row.lead_id, row.handoff_id) for row in await rows(database, DEALS)] == [("lead_9", None)]
    assert await emitted(database) == []


async def test_nobody_eligible_is_said_aloud_with_why_of_each(database: Database) -> None:
    await handle(database, route_leads, [mql(at=recently(), product="sensors")])
    unrouted, suspended = await emitted(database)
    assert isinstance(unrouted, HandoffUnrouted)
    assert (unrouted.pool, unrouted.candidates) == ("lonely", {"gone": "is not active"})
    assert suspended.type == "nurture.suspended"


async def test_an_erased_lead_leaves_ids_and_instants_only(database: Database) -> None:
    at = recently()
    await handle(database, record_sales, [deal("lead_1", "closedwon", at, name="Robots for Jane Roe")])
    await handle(database, route_leads, [LeadErased(lead_id="lead_1", erased_at=at)])
    names = sql("SELECT name FROM opportunities")
    assert [row.name for row in await rows(database, names)] == [None]
