"""The nurture lock of a lead that has two handoffs: the end of one does not lift it (docs/decisions/0012)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.handoff.case import Change
from services.handoff.handlers import record_sales, route_leads
from services.handoff.lifecycle import Action
from services.handoff.transitions import lock_handoff, transition
from shared.db import Database, Session
from shared.events import NurtureRequested, NurtureResumed, OpportunityChanged
from tests.handoff.support import emitted
from tests.handoff.terms import handle, handoff_id, minutes, mql, publish
from tests.support import Databases

pytestmark = pytest.mark.slow

PRODUCTS = ("robots", "sensors")


@pytest.fixture
async def database(databases: Databases) -> Database:
    """A lead that qualified for two products, a minute ago."""
    database = databases.open("handoff")
    await publish(database)
    at = datetime.now(UTC) - minutes(1)
    await handle(database, route_leads, [mql(product=product, at=at) for product in PRODUCTS])
    return database


async def lifted(database: Database) -> list[tuple[str, bool]]:
    """What marketing heard of the ends: the handoff, and whether the lead stays locked."""
    ends = [event for event in await emitted(database) if isinstance(event, NurtureRequested | NurtureResumed)]
    return [(event.handoff_id, event.is_locked) for event in ends]


async def won(database: Database, *products: str) -> None:
    now = datetime.now(UTC)
    deals = [
        OpportunityChanged(
            lead_id="lead_1",
            opportunity_id=f"deal_{product}",
            stage="closedwon",
            source="hubspot",
            source_id=f"won_{product}",
            occurred_at=now,
            received_at=now,
            product=product,
        )
        for product in products
    ]
    await handle(database, record_sales, deals)


async def test_a_deal_that_is_won_leaves_the_lead_locked_while_the_other_product_is_worked_on(
    database: Database,
) -> None:
    await won(database, "robots")
    await won(database, "sensors")
    assert await lifted(database) == [(handoff_id("lead_1"), True), (handoff_id("lead_1", "sensors"), False)]


async def test_of_two_ends_in_one_batch_the_later_one_unlocks(database: Database) -> None:
    await won(database, "sensors", "robots")
    assert await lifted(database) == [(handoff_id("lead_1", "sensors"), True), (handoff_id("lead_1"), False)]


async def test_a_rejection_is_given_back_at_once_and_leaves_the_lead_locked(database: Database) -> None:
    async def reject(session: Session) -> None:
        handoff = await lock_handoff(session, handoff_id("lead_1"))
        assert handoff is not None
        change = Change(Action.REJECT, "ana", "test", reason="not_a_fit")
        await transition(session, handoff, change, now=await session.now())

    await database.run(reject)
    assert await lifted(database) == [(handoff_id("lead_1"), True)]
    await won(database, "sensors")
    assert (await lifted(database))[1:] == [(handoff_id("lead_1", "sensors"), False)]
