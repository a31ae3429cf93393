"""One trace id follows a lead from the webhook to the notification."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.bus import Bus, Record
from shared.envelope import decode
from shared.events import MqlQualified
from shared.telemetry import new_traceparent
from tests.receivers import HttpSink, http_sink
from tests.system import System, system_of, until

TOPICS = ("baton.activities.v1", "baton.scores.v1", "baton.leads.v1", "baton.handoffs.v1", "baton.nurture.v1")


@pytest.fixture
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[System]:
    with system_of("embedded", request, tmp_path) as system:
        yield system


async def records(bus: Bus, topic: str) -> list[Record]:
    found: list[Record] = []
    for place, held in (await bus.ranges([topic])).items():
        found += await bus.read(place, held.begin, max_records=500, timeout_seconds=5.0) if held.end else []
    return found


def traces(system: System) -> dict[str, set[str]]:
    """Trace ids by event type, of everything in the log."""

    async def read() -> dict[str, set[str]]:
        bus = system.bus()
        found: dict[str, set[str]] = {}
        for topic in TOPICS:
            for record in await records(bus, topic):
                received = decode(record)
                found.setdefault(received.event.type, set()).add(received.traceparent.split("-")[1])
        await bus.close()
        return found

    return asyncio.run(read())


@pytest.mark.slow
def test_a_trace_follows_a_lead_from_the_webhook_to_the_notification(system: System) -> None:
    system.start()
    system.publish_agreement()
    trace = new_traceparent()
    item = {"kind": "demo_requested", "identities": {"email": "ana@example.com"}, "attributes": {"country": "US"}}
    with system.client() as client:
        client.post("/v1/activities", json=item, headers={"traceparent": trace}).raise_for_status()

    wanted = {"activity.recorded", MqlQualified.type, "handoff.assigned", "nurture.suspended"}
    until("the events are there", lambda: wanted <= traces(system).keys())
    assert {trace_id for kind in wanted for trace_id in traces(system)[kind]} == {trace.split("-")[1]}


@pytest.mark.slow
async def test_the_receiver_of_a_notification_is_given_the_trace(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    secret = "whsec_" + "A" * 40
    async with http_sink(HttpSink(secret=secret)) as sink:
        settings = {
            "BATON_AUTOMATION_WEBHOOK_URL": sink.url("/nurture"),
            "BATON_AUTOMATION_WEBHOOK_SECRET": secret,
            "BATON_OUTBOUND_ALLOW_PRIVATE": sink.place,
        }
        trace = new_traceparent()
        with system_of("embedded", request, tmp_path) as system:
            await asyncio.to_thread(system.start, **settings)
            await asyncio.to_thread(system.publish_agreement)
            item = {"kind": "demo_requested", "identities": {"email": "ana@example.com"}}
            with system.client() as client:
                await asyncio.to_thread(client.post, "/v1/activities", json=item, headers={"traceparent": trace})
            await sink.until(1, seconds=30)
        assert sink.ledger[0].headers["traceparent"].split("-")[1] == trace.split("-")[1]
