"""/livez, /readyz and /metrics: is this process going on, and can it do its work.

- /livez: this process makes progress: its event loop turns and none of its roles hangs. It asks no dependency: a
  restart would not bring a database back. 503 means: kill it.
- /readyz: 200 `ready`; 200 `degraded` while the event log does not answer, because everything is still accepted (the
  outbox keeps it) and consumers wait by themselves, or while a consumer has halted and needs a person; 503 when it
  cannot accept: a database does not answer or is not migrated, the process is still starting or already stopping. Says
  names and words, never addresses. It asks over connections of its own, one a database: a pool that is all in use is
  load, not an outage, and would else take every process out of the balancer at once. Who finds no connection free in
  time is answered 503 with Retry-After, which is all the relief that helps.
- /metrics: Prometheus text. Like the other two it needs no key and holds no personal data; do not route it publicly.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import structlog
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import SQLAlchemyError

from shared.bus import Bus, BusError
from shared.db import Database, DatabaseError, Limits, Session
from shared.heartbeat import Pulse
from shared.sql import sql
from shared.telemetry import REGISTRY, metrics
from shared.topics import TOPICS

PROBE_SECONDS = 2.0
BROKER_FRESH_SECONDS = 5.0  # answers of the broker are kept this long, so that probes cost it nothing
TURN_SECONDS = 0.5
BLOCKED_SECONDS = 10.0

REVISION = sql("SELECT version_num FROM alembic_version")

Phase = Literal["starting", "running", "stopping"]
Word = Literal["ok", "unavailable", "not migrated", "starting", "stopping", "halted"]

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Health:
    """What this process knows of itself. `heads`: the newest revision in the code, by service.

    `databases`: see `probe_of`; nobody else uses their connections.
    """

    databases: Sequence[Database]
    heads: Mapping[str, str | None]
    bus: Bus
    pulses: list[Pulse] = field(default_factory=list)
    halted: list[str] = field(default_factory=list)
    phase: Phase = "starting"
    turned: float = field(default_factory=time.monotonic)
    _broker: tuple[float, Word] = (-BROKER_FRESH_SECONDS, "ok")

    def stuck(self) -> list[str]:
        """The roles that hang."""
        now = time.monotonic()
        return [name for pulse in self.pulses for name in pulse.stuck(now)]

    async def readiness(self) -> tuple[bool, dict[str, Word]]:
        """Whether this process can do its work, and a word on each thing that it needs."""
        if self.phase != "running":
            return False, {"process": self.phase}
        words = await asyncio.gather(*map(self._database, self.databases))
        checks: dict[str, Word] = {
            f"database {db.service}": word for db, word in zip(self.databases, words, strict=True)
        }
        halted: dict[str, Word] = dict.fromkeys(self.halted, "halted")
        return all(word == "ok" for word in words), checks | {"event log": await self._event_log()} | halted

    async def _database(self, database: Database) -> Word:
        expected = self.heads.get(database.service)

        async def revision(session: Session) -> str | None:
            if expected is None:
                await session.now()
                return None
            row = await session.first(REVISION)
            return row.version_num if row else None

        try:
            async with asyncio.timeout(PROBE_SECONDS):
                return "ok" if await database.read(revision) == expected else "not migrated"
        except (DatabaseError, TimeoutError):
            return "unavailable"
        except SQLAlchemyError:
            return "not migrated"

    async def _event_log(self) -> Word:
        asked, word = self._broker
        if time.monotonic() - asked < BROKER_FRESH_SECONDS:
            return word
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self.bus.ranges([TOPICS[0].name])
            word = "ok"
        except (BusError, TimeoutError):
            word = "unavailable"
        self._broker = (time.monotonic(), word)
        return word


def probe_of(database: Database) -> Database:
    """The same database over one connection of its own, given up soon."""
    limits = Limits(
        connect_seconds=PROBE_SECONDS,
        pool_seconds=PROBE_SECONDS,
        lock_seconds=PROBE_SECONDS,
        statement_seconds=PROBE_SECONDS,
        pool_size=1,
        attempts=1,
    )
    url = database.url.render_as_string(hide_password=False)
    return Database(url, service=database.service, limits=limits, read_only=True)


def routes(health: Health) -> APIRouter:
    """The three endpoints every process has."""
    router = APIRouter(include_in_schema=False)

    @router.get("/livez")
    async def livez() -> JSONResponse:
        stuck = health.stuck()
        return JSONResponse({"status": "stuck" if stuck else "alive", "stuck": stuck}, 503 if stuck else 200)

    @router.get("/readyz")
    async def readyz() -> JSONResponse:
        is_ready, checks = await health.readiness()
        is_whole = all(word == "ok" for word in checks.values())
        status = "ready" if is_whole else "degraded" if is_ready else "not ready"
        return JSONResponse({"status": status, "checks": checks}, 200 if is_ready else 503)

    @router.get("/metrics")
    async def prometheus() -> Response:
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    return router


async def watch_loop(health: Health, stop: asyncio.Event, *, blocked_seconds: float = BLOCKED_SECONDS) -> None:
    """Measure how late the event loop wakes a sleeper; a thread says where it hangs while it hangs."""
    finished = threading.Event()
    watch = partial(_report_blocking, health, threading.get_ident(), finished, blocked_seconds)
    thread = threading.Thread(target=watch, name="watchdog", daemon=True)
    thread.start()
    try:
        while not stop.is_set():
            slept = time.monotonic()
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), TURN_SECONDS)
            health.turned = time.monotonic()
            metrics.loop_lag_seconds.set(max(0.0, health.turned - slept - TURN_SECONDS))
    finally:
        finished.set()
        await asyncio.to_thread(thread.join)


def _report_blocking(health: Health, loop_thread: int, finished: threading.Event, blocked_seconds: float) -> None:
    while not finished.wait(blocked_seconds / 10):
        silent_seconds = time.monotonic() - health.turned
        if silent_seconds > blocked_seconds:
            frame = sys._current_frames().get(loop_thread)
            stack = "".join(traceback.format_stack(frame)) if frame else ""
            log.error("loop.blocked", seconds=round(silent_seconds, 1), stack=stack)
            finished.wait(blocked_seconds)
