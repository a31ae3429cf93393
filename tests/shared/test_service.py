"""One process: ready when it can work, degraded without the event log, loud when a role ends, clean at its end."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Request
from structlog.testing import capture_logs

from shared.bus import BusUnavailable
from shared.db import Database
from shared.embedded import EmbeddedBus
from shared.health import Health, watch_loop
from shared.heartbeat import STUCK_SECONDS, Pulse, beat, beating
from shared.lock import DataInUse, running_server, sole_server
from shared.process import Process, RoleEnded, serve
from shared.service import ROLES, Role, Service, UnknownName, choose_roles, load_services, service_names
from shared.settings import Settings, load
from shared.settle import ConsumerHalted
from tests.support import ROOT

pytestmark = pytest.mark.slow

SPINE = ROOT / "tests/spine"


class LogWithoutBroker(EmbeddedBus):
    """The event log of a day on which the broker is away."""

    async def ranges(self, topics: Sequence[str]) -> Any:
        raise BusUnavailable("no answer")

    async def ensure_topics(self, topics: object) -> Any:
        raise BusUnavailable("no answer")


@dataclass
class Robots:
    """A service with one role and one slow route."""

    drained: list[str] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)

    async def walk(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self.drained.append("walk")

    def routes(self) -> APIRouter:
        router = APIRouter()

        @router.get("/robots")
        async def robots() -> dict[str, int]:
            return {"robots": 2}

        @router.post("/slow")
        async def slow(request: Request) -> dict[str, int]:
            self.entered.set()
            await self.release.wait()
            return {"bytes": len(await request.body())}

        return router

    def service(self, directory: Path, roles: Mapping[str, Role] | None = None) -> Service:
        database = Database(f"sqlite:///{directory}/robots.sqlite", service="robots")
        return Service("robots", database, {"walk": self.walk} if roles is None else roles, [self.routes()], SPINE)


@dataclass
class Running:
    stop: asyncio.Event
    task: asyncio.Task[None]
    client: httpx.AsyncClient


@asynccontextmanager
async def running(
    directory: Path,
    service: Service,
    *,
    roles: frozenset[str] = frozenset({"api", "walk"}),
    log: Callable[[Path], EmbeddedBus] = EmbeddedBus,
) -> AsyncIterator[Running]:
    listener = socket.create_server(("127.0.0.1", 0))
    settings = load(Settings, {"data_directory": directory, "shutdown_seconds": 1})
    process = Process([service], roles, log(directory / "log.sqlite"), settings, listener)
    stop, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(serve(process, stop=stop, ready=ready))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with httpx.AsyncClient(base_url=url) as client:
        started = asyncio.create_task(ready.wait())
        await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        try:
            yield Running(stop, task, client)
        finally:
            stop.set()
            await asyncio.wait([task])


async def test_a_process_with_everything_at_hand_is_ready_and_serves_its_routes(tmp_path: Path) -> None:
    async with running(tmp_path, Robots().service(tmp_path)) as process:
        assert (await process.client.get("/livez")).json() == {"status": "alive", "stuck": []}
        answer = await process.client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (200, "ready")
        assert (await process.client.get("/robots")).json() == {"robots": 2}
        assert "baton_http_requests_total" in (await process.client.get("/metrics")).text


async def test_without_the_event_log_it_starts_and_serves_and_says_degraded(tmp_path: Path) -> None:
    async with running(tmp_path, Robots().service(tmp_path), log=LogWithoutBroker) as process:
        answer = await process.client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
        assert answer.json()["checks"] == {"database robots": "ok", "event log": "unavailable"}
        assert (await process.client.get("/robots")).status_code == 200


async def test_while_the_database_is_away_it_waits_alive_and_not_ready_and_can_be_stopped(tmp_path: Path) -> None:
    away = {"profile": "cluster", "database_url": "postgresql://baton@127.0.0.1:1/baton", "kafka_bootstrap": "unused:1"}
    listener = socket.create_server(("127.0.0.1", 0))
    settings = load(Settings, {**away, "data_directory": tmp_path})
    service = Robots().service(tmp_path)
    process = Process([service], frozenset({"api"}), EmbeddedBus(tmp_path / "log.sqlite"), settings, listener)
    stop = asyncio.Event()
    task = asyncio.create_task(serve(process, stop=stop))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).json() == {"status": "not ready", "checks": {"process": "starting"}}
        answer = await client.get("/robots")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    stop.set()
    await asyncio.wait_for(task, 15)


async def test_a_process_without_the_role_api_has_health_and_no_routes(tmp_path: Path) -> None:
    async with running(tmp_path, Robots().service(tmp_path), roles=frozenset({"walk"})) as process:
        assert (await process.client.get("/readyz")).status_code == 200
        assert (await process.client.get("/robots")).status_code == 404


async def test_told_to_stop_it_answers_what_is_under_way_and_then_drains_its_roles(tmp_path: Path) -> None:
    robots = Robots()
    async with running(tmp_path, robots.service(tmp_path)) as process:
        slow = asyncio.create_task(process.client.post("/slow", content=b"abc"))
        await robots.entered.wait()
        process.stop.set()
        await asyncio.sleep(0.3)
        assert robots.drained == []
        robots.release.set()
        assert (await slow).json() == {"bytes": 3}
        await process.task
        assert robots.drained == ["walk"]


async def test_a_role_that_raises_ends_the_process_after_the_others_have_drained(tmp_path: Path) -> None:
    robots = Robots()

    async def stumble(stop: asyncio.Event) -> None:
        raise ZeroDivisionError("no ground")

    service = robots.service(tmp_path, {"walk": robots.walk, "stumble": stumble})
    async with running(tmp_path, service, roles=frozenset({"walk", "stumble"})) as process:
        with pytest.raises(ZeroDivisionError, match="no ground"):
            await process.task
    assert robots.drained == ["walk"]


async def halt(stop: asyncio.Event) -> None:
    raise ConsumerHalted("records are missing")


async def test_a_consumer_that_halts_leaves_the_door_open_says_so_and_fails_the_exit(tmp_path: Path) -> None:
    robots = Robots()
    service = robots.service(tmp_path, {"walk": robots.walk, "halt": halt})
    async with running(tmp_path, service, roles=frozenset({"api", "walk", "halt"})) as process:
        answer = await process.client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
        assert answer.json()["checks"]["robots.halt"] == "halted"
        assert (await process.client.get("/robots")).status_code == 200
        assert (await process.client.get("/livez")).status_code == 200
        process.stop.set()
        with pytest.raises(ConsumerHalted):
            await process.task


async def test_a_consumer_that_halts_in_a_process_without_a_door_ends_it(tmp_path: Path) -> None:
    async with running(tmp_path, Robots().service(tmp_path, {"halt": halt}), roles=frozenset({"halt"})) as process:
        with pytest.raises(ConsumerHalted):
            await process.task


async def test_a_role_that_returns_before_it_is_told_to_ends_the_process(tmp_path: Path) -> None:
    async def leave(stop: asyncio.Event) -> None:
        return

    service = Robots().service(tmp_path, {"leave": leave})
    async with running(tmp_path, service, roles=frozenset({"leave"})) as process:
        with pytest.raises(RoleEnded, match="leave ended"):
            await process.task


async def test_a_role_that_does_not_drain_is_cancelled_at_the_deadline(tmp_path: Path) -> None:
    cancelled = asyncio.Event()

    async def cling(stop: asyncio.Event) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    service = Robots().service(tmp_path, {"cling": cling})
    async with running(tmp_path, service, roles=frozenset({"cling"})) as process:
        process.stop.set()
        await asyncio.wait_for(process.task, 10)
    assert cancelled.is_set()


def test_a_role_that_has_beaten_and_fell_silent_is_stuck() -> None:
    pulse = Pulse("scoring.consume")
    assert not pulse.is_stuck(1e9)
    with beating(pulse):
        beat()
    assert pulse.beaten is not None
    assert not pulse.is_stuck(pulse.beaten + STUCK_SECONDS)
    assert pulse.is_stuck(pulse.beaten + STUCK_SECONDS + 1)


async def test_a_stuck_role_makes_the_process_not_alive(tmp_path: Path) -> None:
    async with running(tmp_path, Robots().service(tmp_path)) as process:
        pulse = Pulse("walk", beaten=-STUCK_SECONDS * 1000)
        bus = EmbeddedBus(tmp_path / "log.sqlite", read_only=True)
        assert Health([], {}, bus, [pulse]).stuck() == ["walk"]
        await bus.close()
        assert (await process.client.get("/livez")).status_code == 200


async def test_while_the_event_loop_hangs_it_is_said_where(tmp_path: Path) -> None:
    stop = asyncio.Event()
    bus = EmbeddedBus(tmp_path / "log.sqlite")
    with capture_logs() as said:
        watching = asyncio.create_task(watch_loop(Health([], {}, bus), stop, blocked_seconds=0.7))
        await asyncio.sleep(0)
        time.sleep(1.2)  # noqa: ASYNC251 - this is the fault
        stop.set()
        await watching
    await bus.close()
    (line,) = said
    assert line["event"] == "loop.blocked"
    assert "this is the fault" in line["stack"]


def test_an_unknown_role_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    service = Robots().service(tmp_path)
    assert choose_roles([service], None) == {"api", "walk"}
    assert choose_roles([service], ["walk"]) == {"walk"}
    with pytest.raises(UnknownName, match=r"unknown role 'wlak'; did you mean 'walk'\?; known: api, walk"):
        choose_roles([service], ["wlak"])


async def test_the_roles_that_are_known_before_a_service_is_built_are_its_own(tmp_path: Path) -> None:
    bus = EmbeddedBus(tmp_path / "log.sqlite")
    services = load_services(service_names(), bus, load(Settings, {"data_directory": tmp_path}))
    assert {service.name: set(ROLES[service.name]) for service in services} == {
        service.name: choose_roles([service], None) for service in services
    }
    for service in services:
        await service.database.close()
    await bus.close()


async def test_an_unknown_service_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    assert service_names() == ("handoff", "notifier", "scoring")
    bus = EmbeddedBus(tmp_path / "log.sqlite")
    with pytest.raises(UnknownName, match="'skoring'; did you mean 'scoring'"):
        load_services(["skoring"], bus, load(Settings, {"data_directory": tmp_path}))
    await bus.close()


def test_a_data_directory_has_one_server_and_says_which(tmp_path: Path) -> None:
    assert running_server(tmp_path) is None
    with sole_server(tmp_path, "http://127.0.0.1:8080"):
        holder = running_server(tmp_path)
        assert holder is not None
        assert holder.url == "http://127.0.0.1:8080"
        with pytest.raises(DataInUse, match=rf"process {holder.pid}, http://127.0.0.1:8080"), sole_server(tmp_path, ""):
            raise AssertionError("two servers hold one directory")
    assert running_server(tmp_path) is None
    with sole_server(tmp_path, ""):
        assert json.loads((tmp_path / "server.lock").read_text())["url"] == ""
