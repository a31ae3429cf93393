"""The notifier whole: events on the log in, messages out, on both profiles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from services.notifier.__main__ import build
from shared.bus import Message
from shared.envelope import encode
from shared.events import Event, NurtureRequested
from shared.migrations import migrate
from shared.service import Service
from shared.settings import Settings
from tests.notifier.samples import TRACE, handoff, mql, nurture, published
from tests.notifier.test_deliver import SECRET, now, settled
from tests.receivers import HttpSink, SmtpSink, http_sink, smtp_sink
from tests.support import ROOT, Stack

pytestmark = pytest.mark.slow


def message(event: Event, event_id: str) -> Message:
    return encode(event, event_id=event_id, source="/baton/test", time=now(), traceparent=TRACE)


def settings(stack: Stack, directory: Path) -> Settings:
    if stack.name == "embedded":
        return Settings(data_directory=directory)
    url = SecretStr(stack.database_url("notifier"))
    return Settings(profile="cluster", database_url=url, kafka_bootstrap="named by the bus")


def environment(mails: SmtpSink, hooks: HttpSink) -> dict[str, str]:
    return {
        "BATON_SMTP_URL": mails.url,
        "BATON_AUTOMATION_WEBHOOK_URL": hooks.url(),
        "BATON_AUTOMATION_WEBHOOK_SECRET": SECRET,
        "BATON_OUTBOUND_ALLOW_PRIVATE": hooks.place,
    }


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[None]:
    stop = asyncio.Event()
    roles = [asyncio.ensure_future(role(stop)) for role in service.roles.values()]
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(asyncio.gather(*roles), 30)
        await service.database.close()


async def test_a_story_on_the_log_is_told_in_full_whatever_is_read_first(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stack.ensure_topics()
    url = stack.database_url("notifier")
    await asyncio.to_thread(migrate, url, service="notifier", directory=ROOT / "services/notifier/migrations")
    early = [message(handoff(at=now()), "e-1"), message(nurture(at=now()), "e-2")]
    late = [message(mql(), "e-3"), message(published(), "e-4")]
    later = [message(nurture(NurtureRequested, version=4, at=now()), "e-5"), early[0]]
    async with smtp_sink() as mails, http_sink(HttpSink(secret=SECRET)) as hooks:
        for name, value in environment(mails, hooks).items():
            monkeypatch.setenv(name, value)
        service = build(stack.bus, settings(stack, tmp_path))
        producer = await stack.bus.producer()
        async with running(service):
            assert await producer.publish(early) == [None, None]
            await asyncio.sleep(0.5)  # nothing is to happen, and nothing tells that it did not
            assert (mails.ledger, hooks.ledger) == ([], [])
            await producer.publish(late)
            await mails.until(1, seconds=60)
            await producer.publish(later)
            await hooks.until(2, seconds=60)
            found = await settled(service.database)
        await producer.close()
    assert [call.verdict for call in hooks.ledger] == [True, True]
    assert "Ada Byron" in mails.ledger[0].text
    assert len(mails.ledger) == 1
    assert {row.state for row in found} == {"delivered"}
    assert {row.traceparent for row in found} == {TRACE}
