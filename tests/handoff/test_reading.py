"""What is shown of handoffs that nobody has (services/handoff/reading.py)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from services.handoff import reading
from services.handoff.agreement_store import NEWEST
from services.handoff.watch import RING, carry_out
from shared.db import Database
from tests.handoff.support import ALWAYS_OPEN, handed_over, publish
from tests.support import Databases

pytestmark = pytest.mark.slow


@pytest.fixture
async def database(databases: Databases) -> Database:
    database = databases.open("handoff")
    await publish(database, ALWAYS_OPEN)
    return database


async def only(database: Database) -> dict[str, Any]:
    before = (NEWEST[0], NEWEST[1])
    page = await database.read(lambda session: reading.page(session, before=before, size=2, filters={}))
    (item,) = page["items"]
    assert isinstance(item, dict)
    return item


async def test_what_somebody_has_is_not_unrouted(database: Database) -> None:
    await handed_over(database)
    assert (await only(database))["unrouted"] is None


async def test_after_a_breach_it_is_unrouted_since_then_and_nobody_was_refused_yet(database: Database) -> None:
    handoff = await handed_over(database, since=timedelta(minutes=11))
    await carry_out(database, RING)
    shown = await database.read(lambda session: reading.find(session, handoff.handoff_id))
    assert shown is not None
    since = shown["history"][-1]["at"]
    assert (await only(database))["unrouted"] == {"since": since, "last_resort_at": None, "candidates": {}}
