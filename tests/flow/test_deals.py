"""A deal told through scoring's door moves the handoff of its lead, in whichever words its CRM tells it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.handoff.handlers import record_sales
from services.handoff.lifecycle import State
from services.scoring.door import Door
from shared.db import Database, Session
from shared.events import OpportunityChanged, TouchRecorded
from tests.handoff.support import found, handed_over, publish
from tests.handoff.support import received as as_received
from tests.scoring.arriving import send, told
from tests.support import Databases

pytestmark = pytest.mark.slow

ANNA = {"email": "anna@acme.example"}


@pytest.fixture
def scoring(databases: Databases) -> Database:
    return databases.open("scoring")


@pytest.fixture
async def door(scoring: Database) -> AsyncIterator[Door]:
    door = Door(scoring)
    yield door
    await door.close()


def deal(stage: str, **fields: Any) -> dict[str, Any]:
    return {"type": "opportunity", "opportunity_id": "d1", "stage": stage, "identities": ANNA, **fields}


@pytest.mark.parametrize(
    "said",
    [
        {"crm": "hubspot"},
        {"crm": " HubSpot "},
        {"identities": {**ANNA, "crm": {"hubspot": 51}}},
        {"crm": "hubspot", "identities": {**ANNA, "crm": {"salesforce": "003", "hubspot": 51}}},
    ],
)
async def test_a_deal_won_in_the_crm_ends_its_handoff_as_won(
    databases: Databases, scoring: Database, door: Door, said: dict[str, Any]
) -> None:
    handoff = databases.open("handoff")
    await publish(handoff)
    (verdict,) = await send(door, {"kind": "page_viewed", "identities": ANNA})
    assert verdict.lead_id is not None
    opened = await handed_over(handoff, verdict.lead_id)
    await send(door, deal("closedwon", **said))
    events = [event for event in await told(scoring) if isinstance(event, OpportunityChanged)]

    async def work(session: Session) -> None:
        await record_sales([as_received(event) for event in events], session=session, now=await session.now())

    await handoff.run(work)
    assert (await found(handoff, opened.handoff_id)).state is State.WON
    assert [(event.crm, event.source) for event in events] == [("hubspot", "api:test")]


async def test_a_crm_is_guessed_from_no_two_ids_and_a_bad_name_is_refused(scoring: Database, door: Door) -> None:
    two = {"crm": {"hubspot": 51, "salesforce": "003"}}
    await send(door, deal("closedwon", identities=two))
    await send(door, {"type": "touch", "kind": "call_logged", "by": "51", "identities": ANNA, "crm": "hubspot"})
    (refused,) = await send(door, deal("closedwon", crm="Hub Spot"))
    assert refused.reason == "a CRM's namespace is 1 to 40 of a-z, 0-9, _ . - and starts with a letter or digit"
    named = [event.crm for event in await told(scoring) if isinstance(event, OpportunityChanged | TouchRecorded)]
    assert named == [None, "hubspot"]
