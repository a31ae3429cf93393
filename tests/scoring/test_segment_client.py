"""Segment's own client, unmodified, against the door on a real port."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from segment.analytics.client import Client

from shared.db import Database
from shared.events import ActivityRecorded, IdentityMerged
from tests.scoring.arriving import roots, rows, told
from tests.scoring.serving import WRITE_KEY, serving
from tests.support import Databases

pytestmark = pytest.mark.slow


@asynccontextmanager
async def listening(database: Database) -> AsyncIterator[str]:
    async with serving(database) as intake:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            server = uvicorn.Server(uvicorn.Config(intake.app, log_level="warning", lifespan="off"))
            task = asyncio.create_task(server.serve(sockets=[listener]))
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            server.should_exit = True
            await task


@pytest.mark.parametrize("is_gzipped", [False, True])
async def test_segments_own_client_delivers_and_its_person_is_one_lead(databases: Databases, is_gzipped: bool) -> None:
    database = databases.open("scoring")
    failures: list[object] = []

    def tell(host: str) -> None:
        client = Client(
            WRITE_KEY,
            host=host,
            gzip=is_gzipped,
            on_error=lambda error, _: failures.append(error),
            upload_interval=0.05,
            max_retries=2,
        )
        client.page(anonymous_id="browser", name="Pricing", properties={"url": "https://acme.example/pricing?x=1"})
        client.identify("u1", {"email": "ana@acme.example", "title": "Plant Manager"}, anonymous_id="browser")
        for number in range(150):  # more than one upload
            client.track("u1", "Item Viewed", {"number": number})
        client.group("u1", "g1", {"name": "Acme", "employees": 500})
        client.screen("u1", name="Home")
        client.alias("u0", "u1")
        client.flush()
        client.join()

    async with listening(database) as host:
        await asyncio.to_thread(tell, host)
    assert not failures
    events = await told(database)
    activities = [event for event in events if isinstance(event, ActivityRecorded)]
    assert len(activities) == 155
    assert len({event.activity_id for event in activities}) == 155
    assert not any(event.occurred_at_replaced for event in activities)
    joined = await roots(database)
    assert len({joined.get(event.lead_id, event.lead_id) for event in activities}) == 1
    assert all(event.evidence == "weak" for event in events if isinstance(event, IdentityMerged))
    viewed = next(event for event in activities if event.kind == "page_viewed")
    assert viewed.properties == {"url": "https://acme.example/pricing", "path": "/pricing", "name": "Pricing"}
    assert not await rows(database, "SELECT 1 AS x FROM quarantine")
