"""What an item is known by, and what is said of one that was not taken whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from functools import partial

import pytest

from services.scoring.admit import name_by_day
from services.scoring.arrivals import Entry
from services.scoring.door import Door
from shared.db import Database, Session
from shared.sql import sql
from tests.scoring.arriving import delivery, page, rows, send
from tests.support import Databases

pytestmark = pytest.mark.slow


@pytest.fixture
async def database(databases: Databases) -> Database:
    return databases.open("scoring")


@pytest.fixture
async def door(database: Database) -> AsyncIterator[Door]:
    door = Door(database)
    yield door
    await door.close()


async def test_an_item_without_id_is_known_by_its_content(door: Door) -> None:
    item = page(email="ana@acme.example")
    later = {**item, "occurred_at": "2026-11-01T00:00:00Z"}
    statuses = [(await send(door, sent))[0].status for sent in (item, dict(reversed(item.items())), later)]
    assert statuses == ["accepted", "duplicate", "accepted"]


async def test_the_same_call_on_another_day_is_another_call_and_a_repetition_over_midnight_is_not(
    door: Door, database: Database
) -> None:
    call = {"kind": "call_logged", "identities": {"email": "ana@acme.example"}}
    (verdict,) = await send(door, call)
    (known,) = await rows(database, "SELECT source_id, received_at FROM inbox")
    assert verdict.id == known.source_id == f"{verdict.id[:71]}:{known.received_at:%Y-%m-%d}"
    night = known.received_at.replace(hour=23, minute=59)
    entry = Entry("d", "api:test", b"", "", delivery(call).items[0])

    async def name(at: datetime, session: Session) -> str:
        backdate = sql("UPDATE inbox SET received_at = :night")
        await session.execute(backdate, night=night)
        (named,) = await name_by_day(session, [entry], at)
        return named.key[1]

    for later, is_known in [(20, True), (90, False), (60 * 24 * 21, False)]:
        at = night + timedelta(minutes=later)
        assert (await database.run(partial(name, at)) == known.source_id) is is_known
    with_id, with_time = ({**call, **more} for more in ({"id": "1"}, {"occurred_at": "2026-11-01T00:00:00Z"}))
    for item in (with_id, with_time):
        assert (await send(door, item))[0].id == delivery(item).items[0].source_id


async def test_an_item_that_is_too_much_counts_for_what_was_taken_and_is_listed(door: Door, database: Database) -> None:
    item = {"id": "1", **page(user_id="u1"), "attributes": {f"a{number}": 1 for number in range(98)}}
    first, again = await send(door, item, item)
    assert (first.status, again.status, again.reason) == ("accepted", "duplicate", None)
    (listed,) = await rows(database, "SELECT reason FROM quarantine")
    assert listed.reason == first.reason
    assert "34 values were left out" in listed.reason
