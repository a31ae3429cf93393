"""What is kept and told of each event: once, in time, about nobody who was forgotten. On both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.engine import Row

from services.notifier.compose import Channel, Desk
from services.notifier.handlers import DELIVERIES, Patience, handlers
from shared.db import Database, Session
from shared.envelope import Received
from shared.events import Event, HandoffUnrouted, NurtureRequested, NurtureResumed, NurtureSuspended
from shared.outcomes import RetryLater
from shared.sql import sql
from shared.telemetry import metrics
from shared.topics import consumed_by
from tests.notifier.samples import FRIDAY, LEAD, erased, handoff, merged, mql, nurture, published, received, sla
from tests.support import Databases

DESK = Desk(frozenset(Channel), "https://baton.acme.example")
ROWS = sql("SELECT * FROM deliveries ORDER BY seq")
PERSONAL = sql("SELECT event AS kept FROM mqls UNION ALL SELECT message AS kept FROM deliveries")
CANARY = "canary-7f3a"


async def handle(
    database: Database,
    *events: Event | Received[Event],
    now: datetime = FRIDAY,
    desk: Desk = DESK,
    patience: Patience | None = None,
) -> None:
    """All records in one transaction, as the consumer does it."""
    records = [event if isinstance(event, Received) else received(event) for event in events]

    async def work(session: Session) -> None:
        for topic, handler in handlers(desk, patience).items():
            if mine := [record for record in records if record.event.topic == topic]:
                await handler(mine, session=session, now=now)

    await database.run(work)


async def rows(database: Database) -> Sequence[Row[Any]]:
    return await database.read(lambda session: session.execute(ROWS))


async def told(database: Database) -> list[tuple[str, str, str]]:
    return [(row.event_type, row.receiver, row.channel) for row in await rows(database)]


async def personal(database: Database) -> str:
    found = await database.read(lambda session: session.execute(PERSONAL))
    return "".join(row.kept for row in found)


def test_every_topic_that_the_notifier_reads_has_a_handler() -> None:
    assert set(handlers(DESK)) == {topic.name for topic in consumed_by("notifier")}


async def test_an_assignment_becomes_a_delivery_per_channel(databases: Databases) -> None:
    database = databases.open("notifier")
    await handle(database, published(), mql(), handoff())
    assert await told(database) == [
        ("handoff.assigned", "ana@acme.example", "email"),
        ("handoff.assigned", "ana@acme.example", "slack"),
    ]
    first = (await rows(database))[0]
    assert (first.state, first.attempts, first.lead_id, first.handoff_id) == ("pending", 0, LEAD, "handoff_1")
    assert first.stale_at == FRIDAY + timedelta(days=1)


async def test_an_event_that_comes_twice_is_told_once(databases: Databases) -> None:
    database = databases.open("notifier")
    once = received(handoff(), "event-x")
    await handle(database, published(), mql(), once, once)
    before = await rows(database)
    await handle(database, mql(), once)
    assert await rows(database) == before


async def test_a_database_that_lost_a_delivery_makes_it_again_under_the_same_id(databases: Databases) -> None:
    database = databases.open("notifier")
    event = received(handoff(), "event-x")
    await handle(database, published(), mql(), event)
    before = {row.delivery_id for row in await rows(database)}
    await database.run(lambda session: session.execute(sql("DELETE FROM deliveries")))
    await handle(database, event)
    assert {row.delivery_id for row in await rows(database)} == before


async def test_new_deliveries_wake_those_who_send(databases: Databases) -> None:
    database = databases.open("notifier")
    await handle(database, published(), mql(), handoff())
    assert database.signal(f"{DELIVERIES}.email").is_set()
    assert not database.signal(f"{DELIVERIES}.automation").is_set()


async def test_an_event_before_its_mql_waits_and_is_told_in_full_when_that_comes(databases: Databases) -> None:
    database = databases.open("notifier")
    patience = Patience(timedelta(seconds=30))
    await handle(database, published())
    with pytest.raises(RetryLater, match="mql_1"):
        await handle(database, handoff(), patience=patience)
    assert await told(database) == []
    await handle(database, mql(), handoff(), now=FRIDAY + timedelta(seconds=5), patience=patience)
    assert "Ada Byron" in (await rows(database))[0].message


async def test_an_event_before_its_agreement_waits(databases: Databases) -> None:
    database = databases.open("notifier")
    with pytest.raises(RetryLater, match="agreement 1"):
        await handle(database, mql(), handoff())


async def test_after_its_patience_it_tells_what_it_knows(databases: Databases) -> None:
    database = databases.open("notifier")
    patience = Patience(timedelta(seconds=30))
    await handle(database, published())
    events = [received(handoff()), received(handoff(number=2))]
    with pytest.raises(RetryLater):
        await handle(database, *events, patience=patience)
    await handle(database, *events, now=FRIDAY + timedelta(seconds=31), patience=patience)
    assert {row.handoff_id for row in await rows(database)} == {"handoff_1", "handoff_2"}


async def test_the_nurture_lock_needs_no_agreement(databases: Databases) -> None:
    database = databases.open("notifier")
    await handle(database, mql(), nurture())
    assert await told(database) == [("nurture.suspended", "marketing-automation", "automation")]


async def test_an_older_word_after_a_newer_one_is_not_told(databases: Databases) -> None:
    database = databases.open("notifier")
    await handle(database, mql(), nurture(NurtureRequested, version=4))
    await handle(database, nurture(NurtureSuspended, version=1))
    await handle(database, nurture(NurtureResumed, version=6), nurture(NurtureSuspended, version=5))
    assert [row.version for row in await rows(database)] == [4, 6]


async def test_words_in_their_order_are_all_told(databases: Databases) -> None:
    database = databases.open("notifier")
    await handle(database, mql(), nurture(version=1), nurture(NurtureRequested, version=4))
    assert [row.version for row in await rows(database)] == [1, 4]


async def test_a_receiver_without_a_channel_is_a_dead_delivery_with_an_alarm(databases: Databases) -> None:
    database = databases.open("notifier")
    dead = metrics.deliveries_ended.labels("notifier", "email", "dead")
    before = dead._value.get()
    await handle(database, published(), mql(), handoff(), desk=Desk(frozenset({Channel.AUTOMATION}), ""))
    (row,) = await rows(database)
    assert (row.state, row.last_error, row.receiver) == ("dead", "no channel configured", "ana@acme.example")
    assert row.next_attempt_at is None
    assert dead._value.get() == before + 1


async def test_a_lead_that_is_erased_leaves_nothing_personal_and_nothing_to_send(databases: Databases) -> None:
    database = databases.open("notifier")
    secret = mql(contact={"name": CANARY, "email": f"{CANARY}@x.example"})
    await handle(database, published(), secret, handoff(), nurture())
    assert CANARY in await personal(database)
    await handle(database, erased())
    assert CANARY not in await personal(database)
    assert {(row.state, row.last_error) for row in await rows(database)} == {("stale", "the lead was erased")}


async def test_a_forgotten_lead_does_not_come_back_with_a_replay(databases: Databases) -> None:
    database = databases.open("notifier")
    events = [received(event) for event in (published(), mql(contact={"name": CANARY}), handoff(), erased())]
    await handle(database, *events[:3])
    await handle(database, events[3])
    await handle(database, *events)
    await handle(database, sla())
    assert CANARY not in await personal(database)
    assert [row.event_type for row in await rows(database)] == ["handoff.assigned"] * 2


async def test_what_was_merged_into_a_lead_is_forgotten_with_it(databases: Databases) -> None:
    database = databases.open("notifier")
    secret = mql(lead_id="lead_b", contact={"name": CANARY})
    await handle(database, published(), secret, handoff(lead_id="lead_b"), merged("lead_b", "lead_a"))
    await handle(database, merged("lead_a", LEAD))
    await handle(database, erased(LEAD))
    assert CANARY not in await personal(database)


async def test_what_is_merged_into_a_forgotten_lead_is_forgotten(databases: Databases) -> None:
    database = databases.open("notifier")
    await handle(database, published(), mql(lead_id="lead_b", contact={"name": CANARY}), handoff(lead_id="lead_b"))
    await handle(database, erased(LEAD))
    await handle(database, merged("lead_b", "lead_a"), merged("lead_a", LEAD))
    assert CANARY not in await personal(database)


async def test_an_erasure_beside_a_message_in_the_making_wins(databases: Databases) -> None:
    """Twenty rounds of both at once: whoever comes first, nothing personal is left."""
    database = databases.open("notifier")
    await handle(database, published())
    for number in range(20):
        lead_id = f"lead_{number}"
        await handle(database, mql(mql_id=f"mql_{number}", lead_id=lead_id, contact={"name": CANARY}))
        telling = handle(database, handoff(lead_id=lead_id, number=number))
        await asyncio.gather(telling, handle(database, erased(lead_id)))
        assert CANARY not in await personal(database)


async def test_the_batch_is_as_good_as_one_by_one(databases: Databases) -> None:
    database = databases.open("notifier")
    events = [handoff(number=number, lead_id=f"lead_{number}") for number in range(1, 6)]
    events += [handoff(HandoffUnrouted, number=number, lead_id=f"lead_{number}") for number in range(6, 9)]
    mqls = [mql(mql_id=f"mql_{number}", lead_id=f"lead_{number}") for number in range(1, 9)]
    await handle(database, published(), *mqls, *events)
    assert len(await rows(database)) == 16
