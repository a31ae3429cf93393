"""The door against real databases: durable before it answers, one commit for all who wait, one poison alone."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import pytest

from services.scoring.admit import DIFFERENT_BODY
from services.scoring.arrivals import Activity, Delivery
from services.scoring.door import WAITING_ITEMS, Door, DoorClosed
from shared.db import Database, DatabaseUnavailable, Limits
from shared.events import ActivityRecorded, IdentityMerged, OpportunityChanged, TouchRecorded
from tests.scoring.arriving import delivery, page, roots, rows, send, told
from tests.support import ROOT, Databases


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


async def test_an_item_without_id_is_known_by_its_content(door: Door) -> None:
    item = page(email="ana@acme.example")
    later = {**item, "occurred_at": "2026-11-01T00:00:00Z"}
    statuses = [(await send(door, sent))[0].status for sent in (item, dict(reversed(item.items())), later)]
    assert statuses == ["accepted", "duplicate", "accepted"]


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


async def test_trouble_of_the_database_is_told_to_all_who_wait() -> None:
    limits = Limits(connect_seconds=2, pool_seconds=2, attempts=1)
    nowhere = Database("postgresql://nobody@127.0.0.1:1/none", service="scoring", limits=limits)
    door = Door(nowhere)
    answers = await asyncio.gather(*(send(door, page(user_id=name)) for name in "abc"), return_exceptions=True)
    assert all(isinstance(answer, DatabaseUnavailable) for answer in answers)
    await door.close()
    await nowhere.close()


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


async def test_a_shared_browser_fuses_nobody_between_two_intake_processes(databases: Databases) -> None:
    doors = [Door(databases.open("scoring")) for _ in range(2)]
    people: list[tuple[str | None, str | None]] = []

    async def one_round(number: int) -> None:
        browser = f"browser-{number}"
        if number % 2:
            await send(doors[0], {"id": f"visit-{number}", **page(anonymous_id=browser)})
        pair = [page(anonymous_id=browser, email=f"{name}{number}@acme.example") for name in ("ana", "bo")]
        (ana,), (bo,), _ = await asyncio.gather(
            send(doors[number % 2], pair[0]), send(doors[1 - number % 2], pair[1]), send(doors[0], pair[0], pair[1])
        )
        people.append((ana.lead_id, bo.lead_id))

    await asyncio.gather(*(one_round(number) for number in range(200)))
    joined = await roots(databases.opened[0])
    for ana, bo in people:
        assert ana is not None
        assert bo is not None
        assert joined.get(ana, ana) != joined.get(bo, bo)
    for event in await told(databases.opened[0]):
        assert not isinstance(event, IdentityMerged) or event.evidence == "weak"
    for door in doors:
        await door.close()


async def test_two_doors_that_teach_one_lead_a_user_id_each_do_not_make_one_person_of_two(databases: Databases) -> None:
    doors = [Door(databases.open("scoring")) for _ in range(2)]
    await send(doors[0], *(page(email=f"office{number}@acme.example") for number in range(40)))

    async def one_round(number: int) -> None:
        office = f"office{number}@acme.example"
        one, other = (page(user_id=f"{name}{number}", email=office) for name in ("ana", "bo"))
        (ana,), (bo,) = await asyncio.gather(send(doors[0], one), send(doors[1], other))
        assert ana.lead_id != bo.lead_id

    await asyncio.gather(*(one_round(number) for number in range(40)))
    assert not await roots(databases.opened[0])
    (found,) = await rows(databases.opened[0], "SELECT count(*) AS conflicts FROM identity_conflicts")
    assert found.conflicts == 40
    for door in doors:
        await door.close()


async def test_four_writers_over_the_same_people_never_wait_in_a_circle(databases: Databases) -> None:
    doors = [Door(databases.open("scoring")) for _ in range(4)]
    random_ids = random.Random(7)

    def somebody() -> dict[str, Any]:
        number = random_ids.randrange(60)
        ids = {"user_id": f"u{number}", "email": f"m{number}@acme.example", "anonymous_id": f"b{number % 20}"}
        kept = random_ids.sample(sorted(ids), random_ids.randint(1, 3))
        return {"id": str(random_ids.random()), **page(**{name: ids[name] for name in kept})}

    async def write(door: Door) -> None:
        for _ in range(12):
            verdicts = await send(door, *(somebody() for _ in range(25)))
            assert {verdict.status for verdict in verdicts} == {"accepted"}

    await asyncio.gather(*(write(door) for door in doors))
    assert len(await rows(databases.opened[0], "SELECT source_id FROM inbox")) == 4 * 12 * 25
    await databases.close()  # a server process reports its deadlocks at the latest when it ends
    if databases.name == "postgresql":
        deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        (found,) = await rows(databases.open("scoring"), deadlocks)
        assert found.deadlocks == 0


INTAKE = """
import asyncio, sys
from services.scoring.door import Door
from shared.db import Database
from tests.scoring.arriving import page, send

async def main(url, name, rounds):
    door = Door(Database(url, service="scoring"))
    sys.stdin.readline()

    async def one(number):
        item = {"id": f"{name}{number}", **page(email=f"{name}{number}@acme.example", anonymous_id=f"browser{number}")}
        (verdict,) = await send(door, item)
        return f"{verdict.status} {verdict.lead_id}"

    print(*await asyncio.gather(*map(one, range(rounds))), sep="\\n")

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def intake_process(url: str, name: str, rounds: int, **environment: str) -> subprocess.Popen[bytes]:
    """A process of its own with one door; it begins when it is told to, and says what became of each round."""
    return subprocess.Popen(
        [sys.executable, "-c", INTAKE, url, name, str(rounds)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def test_a_shared_browser_fuses_nobody_between_two_real_processes(databases: Databases) -> None:
    database = databases.open("scoring")
    processes = [intake_process(databases.url("scoring"), name, 200) for name in ("ana", "bo")]
    answers = [asyncio.to_thread(process.communicate, b"go\n", 60) for process in processes]
    (ana, _), (bo, errors) = await asyncio.gather(*answers)
    joined = await roots(database)
    people = [[joined.get(line, line) for line in said.decode().split() if line != "accepted"] for said in (ana, bo)]
    assert [len(found) for found in people] == [200, 200], errors.decode()
    assert not set(people[0]) & set(people[1])


@pytest.mark.parametrize(
    ("failpoint", "expected"), [("intake.before_commit", "accepted"), ("intake.after_commit", "duplicate")]
)
async def test_killed_around_the_commit_a_repeated_request_counts_once(
    databases: Databases, failpoint: str, expected: str
) -> None:
    """K1 and K2: the sender saw a broken connection, and sends again."""
    database = databases.open("scoring")
    process = intake_process(databases.url("scoring"), "ana", 1, BATON_FAILPOINT=failpoint)
    said, errors = await asyncio.to_thread(process.communicate, b"go\n", 60)
    assert process.returncode == -signal.SIGKILL, errors.decode()
    assert not said
    door = Door(database)
    (verdict,) = await send(door, {"id": "ana0", **page(email="ana0@acme.example", anonymous_id="browser0")})
    assert verdict.status == expected
    assert len(await told(database)) == 1
    await door.close()
