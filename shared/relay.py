"""The relay: takes what waits in a service's outbox to the log, in order per key.

Any number of relays may run. PostgreSQL: a relay holds shards of keys by session-level advisory locks, taken on the
very connection that reads and marks the rows, so that a relay that lost its connection can do neither. SQLite: the
server's file lock made this process the only one. No transaction is open while the broker is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from sqlalchemy.engine import Row
from sqlalchemy.exc import DBAPIError

from shared.advisory import LOCK_CLASS, lock_key
from shared.bus import Bus, BusError, Message, MessageRefused, Producer
from shared.db import Database, DatabaseError, Pinned, Session, trouble
from shared.failpoints import failpoint
from shared.heartbeat import beat
from shared.outbox import OUTBOX, SHARDS, unpack_headers
from shared.sql import sql
from shared.telemetry import metrics
from shared.waiting import first_of, pause

log = structlog.get_logger()

TRY_LOCKS = sql(
    """
    SELECT shard FROM (SELECT shard, key FROM {rows} OFFSET 0) AS wanted
    WHERE pg_try_advisory_lock(CAST(:class AS int), CAST(key AS int))
    """,
    shard="bigint",
    key="bigint",
)
WAITING = sql(
    """
    SELECT id, topic, key, value, headers, created_at FROM outbox
    WHERE published_at IS NULL AND parked_at IS NULL AND shard IN (SELECT shard FROM {rows})
    ORDER BY id LIMIT :size
    """,
    shard="bigint",
)
PUBLISHED = sql(
    "UPDATE outbox SET published_at = clock_timestamp() FROM {rows} WHERE outbox.id = rows.published_id",
    published_id="bigint",
)
PARKED = sql(
    """
    UPDATE outbox SET parked_at = clock_timestamp(), parked_cause = rows.cause
    FROM {rows} WHERE outbox.id = rows.parked_id
    """,
    parked_id="bigint",
    cause="text",
)
PRUNE = sql(
    """
    DELETE FROM outbox WHERE id IN (
        SELECT id FROM outbox WHERE published_at < :before_at ORDER BY published_at LIMIT :size
    )
    RETURNING id
    """
)
MEASURE = sql(
    """
    SELECT
        (SELECT count(*) FROM outbox WHERE published_at IS NULL AND parked_at IS NULL) AS waiting,
        (SELECT min(created_at) FROM outbox WHERE published_at IS NULL AND parked_at IS NULL) AS oldest_at,
        (SELECT count(*) FROM outbox WHERE parked_at IS NOT NULL) AS parked
    """
)


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """`poll_seconds`: how long a row written by another process may wait unseen. `keep` None: never prune."""

    batch: int = 1000
    poll_seconds: float = 0.25
    lock_seconds: float = 1.0
    keep: timedelta | None = timedelta(days=1)
    prune_seconds: float = 60.0
    measure_seconds: float = 5.0
    max_back_off_seconds: float = 5.0


def relay_settings(prune_after_hours: float) -> RelaySettings:
    """What an operator may set of it; 0 never prunes."""
    return RelaySettings(keep=timedelta(hours=prune_after_hours) if prune_after_hours else None)


class Relay:
    """The relay of one service in one process."""

    def __init__(self, database: Database, bus: Bus, settings: RelaySettings | None = None) -> None:
        self._database = database
        self._bus = bus
        self._settings = settings or RelaySettings()
        self._back_off_seconds = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop` is set. Trouble of broker or database is waited out, and said."""
        while not stop.is_set():
            try:
                beat()
                await self._session(stop)
            except (DatabaseError, BusError, DBAPIError, TimeoutError) as error:
                if isinstance(error, DBAPIError) and trouble(error) is None:
                    raise
                self._back_off_seconds = min(self._back_off_seconds * 2 or 0.1, self._settings.max_back_off_seconds)
                log.warning(
                    "relay.waits", service=self._database.service, cause=type(error).__name__, detail=str(error)
                )
                await pause(stop, self._back_off_seconds)

    async def _session(self, stop: asyncio.Event) -> None:
        """With one connection, one producer, and the shards this connection holds."""
        producer = await self._bus.producer()
        try:
            async with self._database.pinned() as run:
                await self._publish_while_held(run, producer, stop)
        finally:
            await producer.close()

    async def _publish_while_held(self, run: Pinned, producer: Producer, stop: asyncio.Event) -> None:
        clock = asyncio.get_running_loop().time
        hint = self._database.signal(OUTBOX)
        held: set[int] = set()
        locks_at = prune_at = measure_at = 0.0
        while not stop.is_set():
            beat()
            if len(held) < SHARDS and clock() >= locks_at:
                held |= await run(partial(self._lock, held=frozenset(held)))
                locks_at = clock() + self._settings.lock_seconds
            if clock() >= measure_at:
                await run(self._measure)
                measure_at = clock() + self._settings.measure_seconds
            if held and clock() >= prune_at and not await run(self._prune):
                prune_at = clock() + self._settings.prune_seconds
            hint.clear()
            if held and await self._round(run, producer, held):
                self._back_off_seconds = 0.0
                continue
            await first_of(hint, stop, seconds=self._settings.poll_seconds)

    async def _lock(self, session: Session, held: frozenset[int]) -> set[int]:
        """More shards, as far as they are free."""
        wanted = [shard for shard in range(SHARDS) if shard not in held]
        if session.dialect == "sqlite":
            return set(wanted)
        keys = [(shard, lock_key(f"outbox:{session.service}:{shard}")) for shard in wanted]
        return {row.shard for row in await session.execute(TRY_LOCKS, keys, **{"class": LOCK_CLASS})}

    async def _round(self, run: Pinned, producer: Producer, held: set[int]) -> int:
        """Publish one batch; how many rows left the outbox."""
        shards = [(shard,) for shard in sorted(held)]
        rows = await run(lambda session: session.execute(WAITING, shards, size=self._settings.batch))
        if not rows:
            return 0
        verdicts = await producer.publish([_message(row) for row in rows])
        failpoint(f"{self._database.service}.relay.after_publish")
        published, parked, unknown = _sorted_out(rows, verdicts)
        if published or parked:
            await run(lambda session: self._mark(session, published, parked))
        if unknown is not None:
            raise unknown
        return len(published) + len(parked)

    async def _mark(self, session: Session, published: Sequence[int], parked: Sequence[tuple[int, str]]) -> None:
        if published:
            await session.execute(PUBLISHED, [(row_id,) for row_id in published])
            metrics.events_published.labels(session.service).inc(len(published))
        if parked:
            await session.execute(PARKED, parked)
            log.error("outbox.parked", service=session.service, rows=[row_id for row_id, _ in parked])

    async def _prune(self, session: Session) -> bool:
        """Delete a page of what was published long enough ago; whether there may be more."""
        if self._settings.keep is None:
            return False
        before = await session.now() - self._settings.keep
        page = 2 * self._settings.batch  # faster than rounds publish: it keeps up with any load
        return len(await session.execute(PRUNE, before_at=before, size=page)) == page

    async def _measure(self, session: Session) -> None:
        now = await session.now()
        (row,) = await session.execute(MEASURE)
        age_seconds = (now - row.oldest_at).total_seconds() if row.oldest_at else 0.0
        metrics.outbox_waiting.labels(session.service).set(row.waiting)
        metrics.outbox_oldest_seconds.labels(session.service).set(age_seconds)
        metrics.outbox_parked.labels(session.service).set(row.parked)


def _message(row: Row[Any]) -> Message:
    return Message(row.topic, bytes(row.key), bytes(row.value), unpack_headers(row.headers))


def _sorted_out(
    rows: Sequence[Row[Any]], verdicts: Sequence[BusError | None]
) -> tuple[list[int], list[tuple[int, str]], BusError | None]:
    """Ids published, ids parked with their cause, and the trouble of the rest.

    After a row of unknown outcome the later rows of its key wait as well: they would overtake it.
    """
    published: list[int] = []
    parked: list[tuple[int, str]] = []
    unknown: BusError | None = None
    waiting: set[bytes] = set()
    for row, verdict in zip(rows, verdicts, strict=True):
        key = bytes(row.key)
        if isinstance(verdict, MessageRefused):
            parked.append((row.id, str(verdict)))
        elif verdict is not None or key in waiting:
            waiting.add(key)
            unknown = unknown or verdict
        else:
            published.append(row.id)
    return published, parked, unknown
