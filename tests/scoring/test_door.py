"""The door against real databases: durable before it answers, one commit for all who wait, one poison alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import pytest

from services.scoring.admit import DIFFERENT_BODY
from services.scoring.arrivals import Activity, Delivery
from services.scoring.door import GROUP_REQUESTS, WAITING_BYTES, WAITING_ITEMS, Door, DoorClosed, weight
from shared.db import Database, DatabaseUnavailable, Limits
from shared.events import ActivityRecorded, IdentityMerged, OpportunityChanged, TouchRecorded
from tests.scoring.arriving import delivery, page, rows, send, told
from tests.scoring.scorer import Scorer
from tests.silence import silent_database, silent_port
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


async def test_what_was_accepted_is_stored_with_its_bytes_and_its_event(door: Door, database: Database) -> None:
    sent = delivery({"id": "1", **page(email="ana@acme.example")})
    (verdict,) = await door.submit(sent)
    assert (verdict.status, verdict.id) == ("accepted", "1")
    (kept,) = await rows(database, "SELECT body, source FROM deliveries")
    assert bytes(kept.body) == sent.body
    (event,) = await told(database)
    assert isinstance(event, ActivityRecorded)
    assert (event.lead_id, event.kind, event.source) == (verdict.lead_id, "page_viewed", "api:test")
    assert event.occurred_at == event.received_at


async def test_the_same_item_fifty_times_at_once_counts_once_and_all_are_answered(
    door: Door, database: Database
) -> None:
    item = {"id": "1", **page(email="ana@acme.example")}
    answers = [verdict for (verdict,) in await asyncio.gather(*(send(door, item) for _ in range(50)))]
    again = await send(door, item, item)
    assert sorted(verdict.status for verdict in answers) == ["accepted"] + ["duplicate"] * 49
    assert [verdict.status for verdict in again] == ["duplicate", "duplicate"]
    assert len({verdict.lead_id for verdict in [*answers, *again]}) == 1
    assert len(await told(database)) == 1
    assert not await rows(database, "SELECT 1 AS x FROM quarantine")


async def test_the_same_id_of_two_senders_is_two_items(door: Door) -> None:
    item = {"id": "1", **page(email="ana@acme.example")}
    assert [(await send(door, item, source=source))[0].status for source in ("api:a", "api:b")] == ["accepted"] * 2


async def test_a_different_body_under_a_known_id_is_listed_and_the_first_one_counts(
    door: Door, database: Database
) -> None:
    first, second = ({"id": "1", "kind": kind, "identities": {"user_id": "u1"}} for kind in ("trial", "demo"))
    await send(door, first)
    (verdict,) = await send(door, second)
    (third,) = [verdict for verdict in await send(door, first, second) if verdict.reason]
    assert verdict.status == third.status == "duplicate"
    (listed,) = await rows(database, "SELECT reason, item FROM quarantine")
    assert listed.reason == DIFFERENT_BODY
    assert b'"demo"' in bytes(listed.item)
    assert [event.kind for event in await told(database) if isinstance(event, ActivityRecorded)] == ["trial"]


async def test_one_bad_item_among_a_hundred_is_quarantined_and_the_others_count(door: Door, database: Database) -> None:
    items = [page(user_id=f"u{number}") for number in range(100)]
    items[42] = page(user_id="undefined")
    verdicts = await send(door, *items)
    assert [place for place, verdict in enumerate(verdicts) if verdict.status != "accepted"] == [42]
    assert verdicts[42].reason == "no usable identity: user_id is a placeholder"
    assert len(await told(database)) == 99
    assert len(await rows(database, "SELECT 1 AS x FROM quarantine")) == 1


def with_item(sent: Delivery, place: int, **changes: Any) -> Delivery:
    items = list(sent.items)
    items[place] = replace(items[place], **changes)
    return replace(sent, items=items)


async def test_an_item_that_spoils_the_group_is_quarantined_alone(door: Door, database: Database) -> None:
    healthy = [send(door, page(user_id=f"u{number}")) for number in range(20)]
    huge = Activity("page_viewed", {"text": "x" * 300_000})
    spoilt = with_item(delivery(page(user_id="a"), page(user_id="b"), page(user_id="c")), 1, what=huge)
    first, *others = await asyncio.gather(door.submit(spoilt), *healthy)
    assert [verdict.status for verdict in first] == ["accepted", "rejected", "accepted"]
    assert first[1].reason == "cannot be stored (EventTooLarge)"
    assert all(verdict.status == "accepted" for (verdict,) in others)
    assert len(await told(database)) == 22


@pytest.mark.postgres
@pytest.mark.parametrize("databases", ["postgresql"], indirect=True)
async def test_what_postgresql_refuses_is_quarantined_alone(door: Door, database: Database) -> None:
    spoilt = with_item(delivery(page(user_id="a"), page(user_id="b")), 0, source_id="nul\x00")
    assert [verdict.status for verdict in await door.submit(spoilt)] == ["rejected", "accepted"]
    (listed,) = await rows(database, "SELECT source_id FROM quarantine")
    assert listed.source_id == "nul"


async def test_an_error_of_ours_is_no_2xx_and_fails_nobody_else(door: Door) -> None:
    bug = with_item(delivery(page(user_id="a")), 0, what=cast(Activity, "no activity"))
    first, second = await asyncio.gather(door.submit(bug), send(door, page(user_id="b")), return_exceptions=True)
    assert isinstance(first, AssertionError)
    assert isinstance(second, list)


async def test_whoever_waits_shares_one_commit(door: Door, database: Database) -> None:
    await asyncio.gather(*(send(door, page(user_id=f"u{number}")) for number in range(50)))
    (found,) = await rows(
        database, "SELECT count(DISTINCT received_at) AS groups, count(*) AS requests FROM deliveries"
    )
    assert (found.groups, found.requests) == (1, 50)


async def test_a_sender_that_goes_away_takes_nobody_with_it(door: Door) -> None:
    tasks = [asyncio.create_task(send(door, page(user_id=f"u{number}"))) for number in range(10)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[7].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [place for place, answer in enumerate(answers) if isinstance(answer, asyncio.CancelledError)] == [0, 7]
    assert all(isinstance(answer, list) for place, answer in enumerate(answers) if place not in (0, 7))


async def test_who_is_in_gets_an_answer_when_the_door_closes_and_nobody_else_gets_in(door: Door) -> None:
    waiting = [asyncio.create_task(send(door, page(user_id=f"u{number}"))) for number in range(5)]
    await asyncio.sleep(0)
    await door.close()
    assert all(verdict.status == "accepted" for (verdict,) in await asyncio.gather(*waiting))
    with pytest.raises(DoorClosed):
        await send(door, page(user_id="late"))


async def test_a_queue_that_is_too_long_refuses_at_once(door: Door) -> None:
    (item,) = delivery(page(user_id="a")).items
    full = Delivery("api:test", b"", [item] * WAITING_ITEMS)
    waiting = asyncio.create_task(door.submit(full))
    await asyncio.sleep(0)
    with pytest.raises(DoorClosed):
        await send(door, page(user_id="b"))
    assert (await waiting)[0].status == "accepted"


async def test_a_queue_that_weighs_too_much_refuses_at_once(door: Door) -> None:
    heavy = replace(delivery(page(user_id="a")), body=b"x" * WAITING_BYTES)
    waiting = asyncio.create_task(door.submit(heavy))
    await asyncio.sleep(0)
    with pytest.raises(DoorClosed):
        await send(door, page(user_id="b"))
    assert (await waiting)[0].status == "accepted"
    assert (await send(door, page(user_id="b")))[0].status == "accepted"


async def test_a_packed_body_weighs_what_is_in_it() -> None:
    assert weight(delivery(page(user_id="a" * 1000))) > 2000
    assert weight(replace(delivery(page(user_id="a" * 1000)), body=b"packed")) > 1000


async def test_trouble_of_the_database_is_told_to_all_who_wait_at_once() -> None:
    limits = Limits(connect_seconds=0.2, pool_seconds=0.2)
    with silent_port() as port:
        door = Door(silent_database(port, "scoring", limits))
        started_at = time.monotonic()
        answers = await asyncio.gather(
            *(send(door, page(user_id=f"u{number}")) for number in range(5 * GROUP_REQUESTS)), return_exceptions=True
        )
        assert time.monotonic() - started_at < 2
    assert {type(answer) for answer in answers} == {DatabaseUnavailable}


async def test_whoever_waits_too_long_is_told_to_come_back() -> None:
    with silent_port() as port:
        door = Door(silent_database(port, "scoring", Limits(connect_seconds=1, pool_seconds=1)), wait_seconds=0.2)
        waiting = [asyncio.create_task(send(door, page(user_id=name))) for name in "abc"]
        started_at = time.monotonic()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert time.monotonic() - started_at < 1
        assert {type(answer) for answer in answers} == {DoorClosed}
        await door.close()


async def test_after_trouble_there_is_room_again() -> None:
    (item,) = delivery(page(user_id="a")).items
    many = Delivery("api:test", b"", [item] * (WAITING_ITEMS - 1))
    with silent_port() as port:
        door = Door(silent_database(port, "scoring", Limits(connect_seconds=0.1, pool_seconds=0.1)))
        for _ in range(2):
            both = asyncio.gather(send(door, page(user_id="a")), door.submit(many), return_exceptions=True)
            assert [type(answer) for answer in await both] == [DatabaseUnavailable] * 2


async def test_contact_details_stay_here_and_the_latest_counts(door: Door, database: Database) -> None:
    def facts(occurred_at: str, **attributes: str) -> dict[str, Any]:
        return {**page(email="ana@acme.example"), "occurred_at": occurred_at, "attributes": attributes}

    await send(door, facts("2026-03-02T00:00:00Z", first_name="Anna", phone="+1 555 0100", country="US"))
    await send(door, facts("2026-03-03T00:00:00Z", first_name="Ana"), facts("2026-03-01T00:00:00Z", first_name="Old"))
    kept = {row.name: row.value for row in await rows(database, "SELECT name, value FROM contact_facts")}
    assert kept == {"email": "ana@acme.example", "first_name": "Ana", "phone": "+1 555 0100"}
    for row in await rows(database, "SELECT value, headers FROM outbox"):
        sent = bytes(row.value).decode() + row.headers
        assert not any(word in sent for word in ("ana@", "Ana", "Anna", "0100", "Old"))


async def test_what_sales_did_goes_to_handoff_and_counts_as_activity_where_the_lead_took_part(
    door: Door, database: Database
) -> None:
    lead = {"identities": {"crm": {"hubspot": 51}}}
    await send(
        door,
        {"type": "touch", "kind": "meeting_held", "by": "ana@vendor.example", **lead},
        {"type": "touch", "kind": "email_sent", "by": "ana", **lead},
        {"type": "opportunity", "opportunity_id": 7, "stage": "closedwon", "amount": 99.5, "currency": "USD", **lead},
    )
    events = await told(database)
    assert [type(event) for event in events] == [TouchRecorded, ActivityRecorded, TouchRecorded, OpportunityChanged]
    assert len({event.key for event in events}) == 1


async def test_a_lead_named_by_its_id_must_exist_and_may_be_taught(door: Door, database: Database) -> None:
    (met,) = await send(door, page(email="ana@acme.example"))
    named = {"kind": "x", "lead_id": met.lead_id, "identities": {"user_id": "u1"}}
    stranger = {"id": "9", "kind": "x", "lead_id": "lead_01900000-0000-7000-8000-000000000000"}
    found, lost = await send(door, named, stranger)
    assert (found.status, found.lead_id) == ("accepted", met.lead_id)
    assert (lost.status, lost.reason) == ("rejected", "lead_id: no such lead")
    assert (await send(door, page(user_id="u1")))[0].lead_id == met.lead_id
    assert not await rows(database, "SELECT 1 AS x FROM inbox WHERE source_id = '9'")


async def test_an_activity_names_the_agreement_in_force_when_it_came(door: Door, database: Database) -> None:
    await send(door, page(user_id="before"))
    await Scorer(database).publish(version=3)
    await send(door, page(user_id="after"))
    versions = [event.agreement_version for event in await told(database) if isinstance(event, ActivityRecorded)]
    assert versions == [None, 3]


async def test_after_a_merge_every_id_of_both_leads_leads_to_the_survivor(door: Door, database: Database) -> None:
    (by_mail,) = await send(door, page(email="ana@acme.example"))
    await send(door, page(user_id="u1", anonymous_id="browser"))
    await send(door, page(user_id="u1", email="ana@acme.example"))
    await Scorer(database).take(*await told(database))
    ids = ({"email": "ana@acme.example"}, {"user_id": "u1"}, {"anonymous_id": "browser"})
    found = await send(door, *({"kind": "x", "identities": given} for given in ids))
    assert {verdict.lead_id for verdict in found} == {by_mail.lead_id}
    assert len([event for event in await told(database) if isinstance(event, IdentityMerged)]) == 1


@pytest.mark.parametrize("nobody", ["null", "undefined", "0", "None", "nan"])
async def test_placeholders_join_nobody(door: Door, nobody: str) -> None:
    ids = [{"user_id": nobody, "email": f"{name}@acme.example", "anonymous_id": nobody} for name in ("ana", "bo")]
    ana, bo = await send(door, *(page(**given) for given in ids))
    assert ana.lead_id != bo.lead_id
    assert {verdict.status for verdict in await send(door, page(user_id=nobody), page(anonymous_id=nobody))} == {
        "rejected"
    }


async def test_a_mailbox_of_nobody_joins_nobody(door: Door) -> None:
    ana, bo = await send(door, *(page(user_id=user, email="noreply@acme.example") for user in ("u1", "u2")))
    assert ana.lead_id != bo.lead_id
    assert (await send(door, page(email="No-Reply@acme.example")))[0].status == "rejected"
