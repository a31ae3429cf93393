"""One process: its HTTP server, its roles, and what happens when one of them ends.

Listen -> migrate -> ensure the topics -> run the roles -> until told to stop: stop accepting, finish the requests,
drain the roles, close. /livez answers from the first moment, the routes once the process is ready. A role that ends or
raises before it was told to ends the whole process, non-zero and loudly: half a process helps nobody. One exception: a
consumer that halted on purpose leaves the door of its process open.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

import structlog
import uvicorn
from fastapi import Depends, FastAPI
from sqlalchemy.exc import DBAPIError

from shared.bus import Bus, BusError
from shared.db import trouble
from shared.health import Health, probe_of, routes, watch_loop
from shared.heartbeat import Pulse, beating
from shared.middleware import BoundedBody, CleanAddress, Traced
from shared.migrations import head, migrate
from shared.service import API, Role, Service
from shared.settings import Settings
from shared.settle import ConsumerHalted
from shared.telemetry import metrics
from shared.topics import TOPICS
from shared.web import RETRY_AFTER, Problem, add_problem_handlers

RETRY_SECONDS = 2.0
FIRST_TOPICS_SECONDS = 3.0  # a start waits this long for the topics, then goes on without: the outbox keeps what comes
LAST_SECONDS = 5.0

log = structlog.get_logger(__name__)


class RoleEnded(Exception):
    """A role returned although nobody had asked it to stop."""


@dataclass(frozen=True, slots=True)
class Process:
    """What one process runs, and where it listens."""

    services: Sequence[Service]
    roles: frozenset[str]
    bus: Bus
    settings: Settings
    listener: socket.socket
    tending: Mapping[str, Role] = field(default_factory=dict)  # what runs beside the roles, whichever are chosen


async def serve(process: Process, *, stop: asyncio.Event, ready: asyncio.Event | None = None) -> None:
    """Run until `stop` is set, then stop in good order. Sets `ready`. Raises what ended a role before that.

    Closes the services' databases and the bus.
    """
    health = Health(
        databases=[probe_of(service.database) for service in process.services],
        heads={service.name: head(service.migrations) for service in process.services if service.migrations},
        bus=process.bus,
    )
    running = _Running(stop, health, serves=API in process.roles)
    http = _Http(process, health)
    http_task = running.start("http", http.serve)
    running.start("watchdog", partial(watch_loop, health))
    try:
        await _unless(stop, _prepare(process, running))
        if not stop.is_set():
            for name, role in {**_roles(process), **process.tending}.items():
                running.start(name, role)
            health.phase = "running"
            log.info(
                "process.ready", services=[service.name for service in process.services], roles=sorted(process.roles)
            )
            if ready is not None:
                ready.set()
        await stop.wait()
    finally:
        stop.set()
        health.phase = "stopping"
        http.should_exit = True
        await asyncio.wait([http_task], timeout=process.settings.shutdown_seconds + LAST_SECONDS)
        await running.drain(process.settings.shutdown_seconds)
        for database in (*health.databases, *(service.database for service in process.services)):
            await database.close()
        await process.bus.close()
    if running.failures:
        raise running.failures[0]


def build_app(process: Process, health: Health) -> FastAPI:
    """The routes of this process: health always, the services' own with the role `api`."""
    app = FastAPI(title="Baton", version=version("baton"), docs_url=None, redoc_url=None)
    add_problem_handlers(app)
    limits = {path: size for service in process.services for path, size in service.body_limits.items()}
    app.add_middleware(CleanAddress)
    app.add_middleware(BoundedBody, limit=process.settings.max_body_bytes, limits=limits)
    app.add_middleware(Traced)
    app.include_router(routes(health))

    async def started() -> None:
        if health.phase == "starting":
            raise Problem(503, "/problems/starting", "Starting", "not ready yet; send it again", RETRY_AFTER)

    if API in process.roles:
        for router in (router for service in process.services for router in service.routers):
            app.include_router(router, dependencies=[Depends(started)])
    return app


@dataclass(slots=True)
class _Running:
    """The tasks of this process. A failure is remembered and asks everything to stop."""

    stop: asyncio.Event
    health: Health
    serves: bool
    drained: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    def start(self, name: str, role: Role) -> asyncio.Task[None]:
        pulse = Pulse(name)
        self.health.pulses.append(pulse)
        task = asyncio.create_task(self._supervised(name, role, pulse), name=name)
        self.tasks.append(task)
        return task

    async def _supervised(self, name: str, role: Role, pulse: Pulse) -> None:
        try:
            with beating(pulse):
                await role(self.drained)
            if not self.stop.is_set():
                raise RoleEnded(f"{name} ended although nobody asked it to")
        except ConsumerHalted as error:
            self._halted(pulse, error)
        except Exception as error:
            log.exception("role.failed", role=name)
            self.failures.append(error)
            self.stop.set()

    def _halted(self, pulse: Pulse, error: ConsumerHalted) -> None:
        """A consumer needs a person: the door stays open, for what it takes waits safely in the outbox and the log.

        A process without a door has nothing else to do, and ends.
        """
        log.critical("role.halted", role=pulse.name, why=str(error))
        metrics.roles_halted.labels(pulse.name).set(1)
        self.failures.append(error)
        self.health.pulses.remove(pulse)
        self.health.halted.append(pulse.name)
        if not self.serves:
            self.stop.set()

    async def drain(self, seconds: float) -> None:
        """Let the roles finish, then cancel those that do not."""
        self.drained.set()
        _, late = await asyncio.wait(self.tasks, timeout=seconds)
        for task in late:
            log.error("role.late", role=task.get_name(), seconds=seconds)
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=LAST_SECONDS)


class _Http(uvicorn.Server):
    """uvicorn on our socket; signals are the process's own affair."""

    def __init__(self, process: Process, health: Health) -> None:
        self._listener = process.listener
        super().__init__(
            uvicorn.Config(
                build_app(process, health),
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,  # the public URL is a setting, never what a header says
                server_header=False,
                ws="none",
                timeout_graceful_shutdown=int(process.settings.shutdown_seconds),
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def serve(self, sockets: object = None) -> None:
        await super().serve([self._listener])


async def _prepare(process: Process, running: _Running) -> None:
    """Migrate, however long the database is away; give the topics a moment."""
    for service in process.services:
        if service.migrations is not None:
            await _migrate(process.settings.database_url_for(service.name), service.name, service.migrations)
    are_there = asyncio.Event()
    running.start("topics", partial(_ensure_topics, process.bus, are_there))
    with suppress(TimeoutError):
        await asyncio.wait_for(are_there.wait(), FIRST_TOPICS_SECONDS)


async def _migrate(url: str, name: str, directory: Path) -> None:
    while True:
        try:
            done = await asyncio.to_thread(migrate, url, service=name, directory=directory)
        except DBAPIError as error:
            if trouble(error) is None:
                raise
            log.warning("migrate.waits", service=name, cause=type(error.orig).__name__)
            await asyncio.sleep(RETRY_SECONDS)
        else:
            log.info("migrate.done", service=name, before=done.before, after=done.after)
            return


async def _ensure_topics(bus: Bus, are_there: asyncio.Event, stop: asyncio.Event) -> None:
    while not stop.is_set() and not are_there.is_set():
        try:
            report = await bus.ensure_topics(TOPICS)
        except BusError as error:
            log.warning("topics.waits", cause=type(error).__name__, detail=str(error))
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), RETRY_SECONDS)
        else:
            for difference in report.differences:
                log.warning("topics.differ", detail=difference)
            are_there.set()
    await stop.wait()


def _roles(process: Process) -> Mapping[str, Role]:
    return {
        f"{service.name}.{name}": role
        for service in process.services
        for name, role in service.roles.items()
        if name in process.roles
    }


async def _unless(stop: asyncio.Event, work: Awaitable[None]) -> None:
    """Do the work, unless the process is told to stop first."""
    working, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        working.cancel()
    with suppress(asyncio.CancelledError):
        await working
