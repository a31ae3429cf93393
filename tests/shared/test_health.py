"""What a process says of its database: not ready for one that is silent or old, and ready when it only is busy."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from shared.db import READERS, Database, Limits, Session
from shared.embedded import EmbeddedBus
from shared.health import PROBE_SECONDS, Health, probe_of, routes
from shared.heartbeat import Pulse
from shared.migrations import head, migrate
from tests.silence import silent_database, silent_port
from tests.support import ROOT, Databases

pytestmark = pytest.mark.slow

SPINE = ROOT / "tests/spine"


async def test_a_database_at_an_older_revision_is_not_ready_but_alive(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/robots.sqlite", service="robots")
    health = Health([database], {"robots": "0001"}, EmbeddedBus(tmp_path / "log.sqlite"), phase="running")
    is_ready, checks = await health.readiness()
    assert not is_ready
    assert checks["database robots"] == "not migrated"
    assert health.stuck() == []
    await database.close()
    await health.bus.close()


async def test_a_database_that_never_answers_is_not_ready_soon_and_nothing_counts_as_stuck(tmp_path: Path) -> None:
    with silent_port() as port:
        database = silent_database(port, "robots")
        bus = EmbeddedBus(tmp_path / "log.sqlite")
        health = Health([probe_of(database)], {"robots": "0001"}, bus, [Pulse("walk")], phase="running")
        app = FastAPI()
        app.include_router(routes(health))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://robots") as client:
            ready = asyncio.create_task(client.get("/readyz"))
            assert (await client.get("/livez")).status_code == 200
            answer = await asyncio.wait_for(ready, PROBE_SECONDS + 2)
            assert (answer.status_code, answer.json()["checks"]["database robots"]) == (503, "unavailable")
        await bus.close()


async def test_a_pool_that_is_all_in_use_is_load_and_no_outage(databases: Databases, tmp_path: Path) -> None:
    url = databases.url("robots")
    await asyncio.to_thread(migrate, url, service="robots", directory=SPINE)
    database = Database(url, service="robots", limits=Limits(pool_size=1))
    health = Health(
        [probe_of(database)], {"robots": head(SPINE)}, EmbeddedBus(tmp_path / "log.sqlite"), phase="running"
    )
    everybody_is_in, is_over = asyncio.Barrier(READERS + 1 if database.dialect == "sqlite" else 2), asyncio.Event()

    async def hold(session: Session) -> None:
        await session.now()
        await everybody_is_in.wait()
        await is_over.wait()

    held = [asyncio.create_task(database.read(hold)) for _ in range(everybody_is_in.parties - 1)]
    await everybody_is_in.wait()
    is_ready, checks = await health.readiness()
    assert (is_ready, checks["database robots"]) == (True, "ok")
    is_over.set()
    await asyncio.gather(*held)
    for each in (database, *health.databases):
        await each.close()
    await health.bus.close()
