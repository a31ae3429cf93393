"""What leaves, against a real HTTP and a real SMTP server that misbehave, on both databases."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.engine import Row

from services.notifier.channels import Send
from services.notifier.channels.automation import automation
from services.notifier.channels.email import email, mailbox
from services.notifier.channels.slack import slack
from services.notifier.checks import checks
from services.notifier.compose import Channel, Desk
from services.notifier.deliver import DeliverSettings, deliver
from services.notifier.store import queue
from shared.clock import system_clock
from shared.db import Database, Session
from shared.events import Event, NurtureRequested, SlaWarned
from shared.http import Outbound
from shared.sql import sql
from shared.telemetry import metrics
from tests.notifier.samples import TRACE, erased, handoff, mql, nurture, published, sla
from tests.notifier.test_handlers import handle, rows
from tests.receivers import HttpSink, SmtpSink, http_sink, smtp_sink
from tests.support import ROOT, Databases

pytestmark = pytest.mark.slow

SECRET = "whsec_" + "c2VjcmV0IGJ5dGVzIG9mIGEgdGVzdCwgMzIgb2YgdGhlbQ=="
FAST = DeliverSettings(back_off_seconds=(0.05, 0.05), lease_seconds=5.0, poll_seconds=0.05)
EXPIRE = sql("UPDATE deliveries SET next_attempt_at = :long_ago_at WHERE claim IS NOT NULL")

MAIL, SLACK, AUTOMATION = (Desk(frozenset({channel}), "https://baton.acme.example") for channel in Channel)


def now() -> datetime:
    return datetime.now(UTC)


async def seed(database: Database, desk: Desk, *events: Event) -> None:
    """The deliveries of these events, due now."""
    await handle(database, published(), mql(), mql(mql_id="mql_2", lead_id="lead_2"), desk=desk)
    await handle(database, *events, desk=desk, now=now())


def hook(sink: HttpSink, path: str = "/") -> Send:
    return automation(Outbound(frozenset({sink.place})), sink.url(path), SECRET, system_clock)


def mail(sink: SmtpSink) -> Send:
    return email(mailbox(sink.url, "baton@acme.example"))


@asynccontextmanager
async def delivering(
    database: Database, senders: Mapping[Channel, Send], settings: DeliverSettings = FAST
) -> AsyncIterator[None]:
    stop = asyncio.Event()
    role = asyncio.create_task(deliver(stop, database=database, senders=senders, settings=settings))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(role, 30)


async def settled(database: Database, seconds: float = 10.0) -> Sequence[Row[Any]]:
    """The rows once none is pending."""
    async with asyncio.timeout(seconds):
        while True:
            found = await rows(database)
            if all(row.state != "pending" for row in found):
                return found
            await asyncio.sleep(0.05)


async def until(happened: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not await happened():
            await asyncio.sleep(0.02)


async def has_failed(database: Database) -> bool:
    """Whether an attempt failed and nobody has the row in hand."""
    return any(row.last_error and row.claim is None for row in await rows(database))


async def test_a_mail_arrives_once_and_is_recorded(databases: Databases) -> None:
    database = databases.open("notifier")
    await seed(database, MAIL, handoff(at=now()))
    async with smtp_sink() as sink, delivering(database, {Channel.EMAIL: mail(sink)}):
        (row,) = await settled(database)
    (arrived,) = sink.ledger
    assert (row.state, row.attempts, row.claim, row.last_error) == ("delivered", 1, None, None)
    assert row.delivered_at is not None
    assert arrived.recipients == ("ana@acme.example",)
    assert arrived.id == f"<{row.delivery_id}@acme.example>"
    assert arrived.message["Auto-Submitted"] == "auto-generated"
    assert arrived.message["References"] == "<handoff_1@acme.example>"
    assert arrived.subject == "A lead for you: Ada Byron"
    assert "Plant & Sons" in arrived.text
    assert "Plant &amp; Sons" in arrived.html


async def test_a_webhook_is_signed_under_the_deliverys_id_and_carries_the_trace(databases: Databases) -> None:
    database = databases.open("notifier")
    await seed(database, AUTOMATION, nurture(at=now()))
    async with http_sink(HttpSink(secret=SECRET)) as sink, delivering(database, {Channel.AUTOMATION: hook(sink)}):
        (row,) = await settled(database)
    (call,) = sink.ledger
    assert (call.verdict, call.id, row.state) == (True, row.delivery_id, "delivered")
    assert call.headers["traceparent"] == TRACE


async def test_a_failed_attempt_is_repeated_with_the_same_id_and_body_and_a_signature_of_its_own(
    databases: Databases,
) -> None:
    database = databases.open("notifier")
    await seed(database, AUTOMATION, nurture(at=now()))
    settings = DeliverSettings(back_off_seconds=(1.1,), jitter=0, poll_seconds=0.05)
    sink = HttpSink(secret=SECRET, mode="500")
    async with http_sink(sink), delivering(database, {Channel.AUTOMATION: hook(sink)}, settings):
        await sink.until(1)
        sink.mode = "ok"
        (row,) = await settled(database)
    first, second = sink.ledger
    assert (first.id, first.body_hash) == (second.id, second.body_hash)
    assert first.headers["webhook-timestamp"] < second.headers["webhook-timestamp"]
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]
    assert (first.verdict, second.verdict) == (True, True)
    assert (row.state, row.attempts) == ("delivered", 2)


@pytest.mark.parametrize("mode", ["500", "redirect", "lost", "429"])
async def test_after_the_last_attempt_a_delivery_is_dead_with_an_alarm(databases: Databases, mode: Any) -> None:
    database = databases.open("notifier")
    dead = metrics.deliveries_ended.labels("notifier", "automation", "dead")
    before = dead._value.get()
    await seed(database, AUTOMATION, nurture(at=now()))
    async with http_sink() as target:
        sink = HttpSink(mode=mode, redirect_to=target.url(), retry_after="0")
        async with http_sink(sink), delivering(database, {Channel.AUTOMATION: hook(sink)}):
            (row,) = await settled(database)
    assert (row.state, row.attempts, len(sink.ledger), target.ledger) == ("dead", 3, 3, [])
    assert row.last_error
    assert dead._value.get() == before + 1


async def test_a_receiver_that_is_gone_is_not_asked_again(databases: Databases) -> None:
    database = databases.open("notifier")
    await seed(database, AUTOMATION, nurture(at=now()))
    async with http_sink(HttpSink(mode="410")) as sink, delivering(database, {Channel.AUTOMATION: hook(sink)}):
        (row,) = await settled(database)
    assert (row.state, row.attempts, row.last_error) == ("dead", 1, "HTTP 410: no")


async def test_a_private_address_is_never_called(databases: Databases) -> None:
    database = databases.open("notifier")
    await seed(database, AUTOMATION, nurture(at=now()))
    async with http_sink() as sink:
        careful = automation(Outbound(), f"https://localhost:{sink.port}/", SECRET, system_clock)
        async with delivering(database, {Channel.AUTOMATION: careful}):
            (row,) = await settled(database)
    assert (row.state, sink.ledger) == ("dead", [])


async def test_nobody_is_told_what_is_too_late(databases: Databases) -> None:
    database = databases.open("notifier")
    await seed(database, MAIL, sla(SlaWarned, at=now() - timedelta(hours=2)), handoff(at=now()))
    async with smtp_sink() as sink, delivering(database, {Channel.EMAIL: mail(sink)}):
        warned, assigned = await settled(database)
    assert (warned.state, warned.attempts, warned.last_error) == ("stale", 0, "too late")
    assert assigned.state == "delivered"
    assert [arrived.subject for arrived in sink.ledger] == ["A lead for you: Ada Byron"]


async def test_a_receiver_that_hangs_keeps_nobody_else_waiting(databases: Databases) -> None:
    database = databases.open("notifier")
    desk = Desk(frozenset(Channel), "")
    await seed(database, desk, *(handoff(number=1 + number % 2, at=now()) for number in range(9)))
    sink = HttpSink(mode="silent")
    async with smtp_sink() as mails, http_sink(sink):
        hanging = slack(Outbound(frozenset({sink.place})), sink.url())
        role = asyncio.create_task(
            deliver(
                asyncio.Event(),
                database=database,
                senders={Channel.EMAIL: mail(mails), Channel.SLACK: hanging},
                settings=FAST,
            )
        )
        await mails.until(9, seconds=5)
        assert {row.state for row in await rows(database) if row.channel == "slack"} == {"pending"}
        role.cancel()
        await asyncio.gather(role, return_exceptions=True)


@pytest.mark.parametrize(("mode", "attempts"), [("550", 1), ("451", 3)])
async def test_5xx_of_a_mail_server_is_final_and_4xx_is_not(databases: Databases, mode: Any, attempts: int) -> None:
    database = databases.open("notifier")
    await seed(database, MAIL, handoff(at=now()))
    async with smtp_sink(SmtpSink(mode=mode)) as sink, delivering(database, {Channel.EMAIL: mail(sink)}):
        (row,) = await settled(database)
    assert (row.state, row.attempts, len(sink.ledger)) == ("dead", attempts, attempts)
    assert row.last_error.startswith(f"SMTP {mode}")


async def test_a_mailbox_that_does_not_exist_is_final(databases: Databases) -> None:
    database = databases.open("notifier")
    await seed(database, MAIL, handoff(owner="ana", at=now()), handoff(owner="bo", at=now()))
    sink = SmtpSink(refused={"ana@acme.example"})
    async with smtp_sink(sink), delivering(database, {Channel.EMAIL: mail(sink)}):
        found = await settled(database)
    assert {row.receiver: row.state for row in found} == {"ana@acme.example": "dead", "bo@acme.example": "delivered"}


async def test_a_mail_whose_answer_was_lost_comes_again_byte_for_byte(databases: Databases) -> None:
    database = databases.open("notifier")
    await seed(database, MAIL, handoff(at=now()))
    async with smtp_sink(SmtpSink(mode="lost")) as sink, delivering(database, {Channel.EMAIL: mail(sink)}):
        await sink.until(1)
        sink.mode = "ok"
        (row,) = await settled(database)
    assert row.state == "delivered"
    assert len(sink.ledger) >= 2
    assert len({(arrived.id, arrived.raw) for arrived in sink.ledger}) == 1


async def test_a_mail_whose_sender_is_refused_waits_until_that_is_mended(databases: Databases) -> None:
    database = databases.open("notifier")
    await seed(database, MAIL, handoff(at=now()))
    sink = SmtpSink(refused={"baton@acme.example"})
    patient = DeliverSettings(back_off_seconds=(0.05,) * 200, poll_seconds=0.05)
    async with smtp_sink(sink), delivering(database, {Channel.EMAIL: mail(sink)}, patient):
        await until(lambda: has_failed(database))
        assert (await rows(database))[0].last_error.startswith("SMTP 550")
        sink.refused.clear()
        (row,) = await settled(database)
    assert (row.state, len(sink.ledger)) == ("delivered", 1)


async def test_a_mail_server_that_is_down_is_waited_for(databases: Databases) -> None:
    database = databases.open("notifier")
    await seed(database, MAIL, handoff(at=now()))
    async with smtp_sink() as sink:
        pass
    async with delivering(database, {Channel.EMAIL: mail(sink)}):
        (row,) = await settled(database)
    assert (row.state, row.attempts) == ("dead", 3)


async def test_marketings_automation_hears_in_order_and_not_what_was_overtaken(databases: Databases) -> None:
    database = databases.open("notifier")
    await seed(database, AUTOMATION, nurture(version=1, at=now()))
    sink = HttpSink(mode="500")
    settings = DeliverSettings(back_off_seconds=(0.5,) * 9, jitter=0, poll_seconds=0.05)
    async with http_sink(sink), delivering(database, {Channel.AUTOMATION: hook(sink)}, settings):
        await until(lambda: has_failed(database))
        (waiting,) = await rows(database)
        await handle(database, nurture(NurtureRequested, version=4, at=now()), desk=AUTOMATION, now=now())
        sink.mode = "ok"
        older, newer = await settled(database)
    assert newer.delivered_at >= waiting.next_attempt_at
    assert (older.state, older.last_error) == ("stale", "overtaken; before: HTTP 500: no")
    assert (newer.state, [call.id for call in sink.ledger]) == ("delivered", [older.delivery_id, newer.delivery_id])


async def test_words_that_were_never_tried_are_all_said_in_their_order(databases: Databases) -> None:
    database = databases.open("notifier")
    await seed(database, AUTOMATION, nurture(version=1, at=now()), nurture(NurtureRequested, version=4, at=now()))
    async with http_sink() as sink, delivering(database, {Channel.AUTOMATION: hook(sink)}):
        found = await settled(database)
    assert [call.id for call in sink.ledger] == [row.delivery_id for row in found]
    assert {row.state for row in found} == {"delivered"}


async def test_a_message_about_a_lead_erased_meanwhile_is_not_sent_again(databases: Databases) -> None:
    database = databases.open("notifier")
    await seed(database, AUTOMATION, nurture(at=now()))
    sink = HttpSink(mode="500")
    settings = DeliverSettings(back_off_seconds=(0.3,) * 9, poll_seconds=0.05)
    async with http_sink(sink), delivering(database, {Channel.AUTOMATION: hook(sink)}, settings):
        await sink.until(1)
        await handle(database, erased())
        calls = len(sink.ledger)
        await asyncio.sleep(0.6)
        (row,) = await rows(database)
    assert (row.state, row.last_error, len(sink.ledger)) == ("stale", "the lead was erased", calls)


async def test_two_processes_send_each_delivery_once(databases: Databases) -> None:
    database = databases.open("notifier")
    await seed(database, MAIL, *(handoff(at=now()) for _ in range(40)))
    async with smtp_sink() as sink:
        senders = {Channel.EMAIL: mail(sink)}
        async with delivering(database, senders), delivering(database, senders):
            found = await settled(database, seconds=30)
    assert {row.attempts for row in found} == {1}
    assert len(sink.ledger) == len({arrived.id for arrived in sink.ledger}) == 40


async def test_a_stop_lets_what_is_being_sent_end(databases: Databases) -> None:
    database = databases.open("notifier")
    await seed(database, AUTOMATION, nurture(at=now()))
    sink = HttpSink(mode="slow", slow_seconds=0.5)
    async with http_sink(sink):
        async with delivering(database, {Channel.AUTOMATION: hook(sink)}):
            await sink.until(1)
        (row,) = await rows(database)
    assert row.state == "delivered"


async def test_a_lease_that_ended_is_taken_over_and_the_late_outcome_is_refused(databases: Databases) -> None:
    database = databases.open("notifier")
    await seed(database, MAIL, handoff(at=now()))

    async def claim(session: Session) -> list[queue.Claimed]:
        return await queue.claim(session, Channel.EMAIL, token=os.urandom(4).hex(), size=5, lease=timedelta(minutes=1))

    (first,) = await database.run(claim)
    assert await database.run(claim) == []
    await database.run(lambda session: session.execute(EXPIRE, long_ago_at=now() - timedelta(hours=1)))
    (finding,) = await database.read(checks)
    assert (finding.invariant, finding.subject) == ("I22", first.item.delivery_id)
    (second,) = await database.run(claim)
    assert second.item.delivery_id == first.item.delivery_id
    assert not await database.run(lambda session: queue.record_dead(session, first, "late"))
    assert await database.run(lambda session: queue.record_delivered(session, second))
    assert (await rows(database))[0].state == "delivered"
    assert await database.read(checks) == []


async def test_what_is_due_and_not_attempted_is_found_by_the_check(databases: Databases) -> None:
    database = databases.open("notifier")
    await handle(database, published(), mql(), desk=MAIL)
    await handle(database, handoff(at=now()), desk=MAIL, now=now() - timedelta(minutes=10))
    (finding,) = await database.read(checks)
    assert (finding.invariant, finding.detail[:26]) == ("I22", "due and not attempted sinc")
    assert await database.read(lambda session: checks(session, grace=timedelta(hours=1))) == []


@pytest.mark.parametrize(
    "damage",
    ["DELETE FROM leads", "UPDATE mqls SET lead_id = 'lead_gone'", "UPDATE leads SET merged_into = 'lead_gone'"],
)
async def test_what_belongs_to_nothing_is_found_by_the_check(databases: Databases, damage: str) -> None:
    database = databases.open("notifier")
    await seed(database, MAIL, handoff(at=now()))
    assert await database.read(checks) == []
    await database.run(lambda session: session.execute(sql(damage)))
    assert {finding.invariant for finding in await database.read(checks)} == {"I22"}


@pytest.mark.parametrize(("point", "calls"), [("notifier.before_send", 1), ("notifier.after_send", 2)])
async def test_a_delivery_survives_a_kill_under_its_id(databases: Databases, point: str, calls: int) -> None:
    """K13 and K15: killed before sending, it is sent later; killed before it was noted, it is sent again."""
    database = databases.open("notifier")
    await seed(database, SLACK, handoff(at=now()))
    async with http_sink() as sink:
        command = (sys.executable, "-m", "tests.notifier.sending", databases.url("notifier"), sink.place)
        killed = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env={**os.environ, "BATON_FAILPOINT": point}, stderr=asyncio.subprocess.DEVNULL
        )
        assert await asyncio.wait_for(killed.wait(), 30) == -signal.SIGKILL
        assert len(sink.ledger) == calls - 1
        async with delivering(database, {Channel.SLACK: slack(Outbound(frozenset({sink.place})), sink.url())}):
            (row,) = await settled(database)
    assert (row.state, row.attempts, len(sink.ledger)) == ("delivered", 2, calls)
    assert len({call.body_hash for call in sink.ledger}) == 1


async def test_a_kill_before_the_answer_was_read_repeats_under_the_same_id(databases: Databases) -> None:
    """K14: the one repeat that we allow."""
    database = databases.open("notifier")
    await seed(database, SLACK, handoff(at=now()))
    sink = HttpSink(mode="slow", slow_seconds=2.0)
    async with http_sink(sink):
        command = (sys.executable, "-m", "tests.notifier.sending", databases.url("notifier"), sink.place)
        killed = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stderr=asyncio.subprocess.DEVNULL)
        await sink.until(1, seconds=30)
        killed.kill()
        await killed.wait()
        sink.mode = "ok"
        async with delivering(database, {Channel.SLACK: slack(Outbound(frozenset({sink.place})), sink.url())}):
            (row,) = await settled(database)
    assert (row.state, row.attempts, len(sink.ledger)) == ("delivered", 2, 2)


def test_the_back_off_follows_its_schedule_with_jitter_and_obeys_a_longer_wish() -> None:
    settings = DeliverSettings(back_off_seconds=(5.0, 30.0), jitter=0.2)
    waits = [settings.wait(1, 0.0) for _ in range(200)]
    seconds = [wait.total_seconds() for wait in waits if wait is not None]
    assert 4.0 <= min(seconds) < 4.5
    assert 5.5 < max(seconds) <= 6.0
    assert settings.wait(2, 3600.0) == timedelta(hours=1)
    assert settings.wait(3, 0.0) is None
