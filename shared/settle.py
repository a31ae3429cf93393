"""Settling a bundle: its records applied in ONE transaction that also moves their positions (laws 2 and 8).

The transaction's first statement moves the positions by compare-and-set. A partition whose comparison is lost belongs
to somebody else by now: its records leave the bundle before any lock or handler.

What goes wrong has one answer each:
- trouble of the database: the same bundle again, without limit
- a statement time-out: smaller bundles; a single record is poison only while the database is well
- `RetryLater`: the record's lane waits, the others go on
- `Reject`, or what cannot be read: dead letter, in the transaction that moves the position
- any other exception: a few repetitions, then smaller bundles, down to the record that causes it: dead letter
- too many dead letters in a row: `ConsumerHalted`
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import structlog

from shared.bus import Record, TopicPartition
from shared.db import Database, DatabaseError, Session, StatementTimeout
from shared.envelope import EventUnreadable, Received, decode
from shared.events import Event
from shared.failpoints import failpoint
from shared.lanes import Bundle, Lane, Slice
from shared.outbox import Death, emit_dead_letter
from shared.outcomes import Reject, RetryLater
from shared.positions import move, resolve, set_dead_in_row
from shared.telemetry import metrics, reason_of

log = structlog.get_logger()

Deaths = dict[Record, Death]


class Handler(Protocol):
    """Applies all records of its topic in the transaction, types mixed, in lane order."""

    def __call__(self, records: Sequence[Received[Any]], /, *, session: Session, now: datetime) -> Awaitable[None]: ...


class ConsumerHalted(Exception):
    """This consumer stopped on purpose and needs a person: the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class ConsumeSettings:
    """Sizes are records, times seconds."""

    batch: int = 1000  # a transaction; larger ones gain nothing and raise the p99
    parallel: int = 4  # transactions at once, out of the pool's connections
    attempts: int = 3  # of a bundle whose handler raises, before it is split
    timeouts: int = 5  # of a single record, before it is poison
    dead_in_row: int = 100  # dead letters in a row of one partition; one more stops the consumer
    wait_seconds: float = 900.0  # RetryLater, in all
    poll_seconds: float = 0.5
    back_off_seconds: float = 0.1
    max_back_off_seconds: float = 5.0
    drain_seconds: float = 10.0
    commit_seconds: float = 1.0  # between two hints to the group

    def back_off(self, failures: int) -> float:
        """Seconds to wait after so many failures: doubling, bounded, with jitter."""
        seconds = min(self.back_off_seconds * float(1 << min(failures, 16)), self.max_back_off_seconds)
        return seconds * (0.5 + random.random() / 2)


class Settler:
    """Applies bundles to the database of one service, through its handlers."""

    def __init__(self, database: Database, handlers: Mapping[str, Handler], settings: ConsumeSettings) -> None:
        self._database = database
        self._service = database.service
        self._handlers = handlers
        self._settings = settings

    async def settle(self, bundle: Bundle, dead: Deaths | None = None) -> None:
        """Return when each record is applied, dead-lettered, held, or no longer ours. Raises `ConsumerHalted`.

        `dead`: the records found to be poison so far, with why.
        """
        dead = {} if dead is None else dead
        failures = troubles = 0
        while bundle := bundle.still_ours():
            try:
                await self._apply(bundle, dead)
                return
            except RetryLater as outcome:
                bundle = self._held(bundle, outcome, dead)
            except Reject as outcome:
                self._bury(outcome.received.record, Death("rejected", outcome.reason, failures + 1), dead)
            except StatementTimeout as error:
                if len(bundle) > 1:
                    return await self._settle_parts(bundle, dead)
                await self._suspect(bundle, dead, error)
            except DatabaseError as error:
                troubles += 1
                log.warning("consume.database", service=self._service, cause=type(error).__name__, detail=str(error))
                await asyncio.sleep(self._settings.back_off(troubles))
            except ConsumerHalted:
                raise
            except Exception as error:
                failures += 1
                metrics.batches_retried.labels(self._service).inc()
                log.warning("consume.failed", service=self._service, records=len(bundle), cause=reason_of(error))
                if failures < self._settings.attempts:
                    await asyncio.sleep(self._settings.back_off(failures))
                elif len(bundle) > 1:
                    return await self._settle_parts(bundle, dead)
                else:
                    self._bury(bundle.first, Death("handler-failed", reason_of(error), failures), dead)

    async def _settle_parts(self, bundle: Bundle, dead: Deaths) -> None:
        for part in bundle.split():
            await self.settle(part, dead)

    def _held(self, bundle: Bundle, outcome: RetryLater, dead: Deaths) -> Bundle:
        """The bundle without the rest of a lane that has to wait, or with a record that waited in vain dead."""
        record = outcome.received.record
        lane = next(lane for lane in bundle.lanes if lane.place == record.place)
        now = asyncio.get_running_loop().time()
        if lane.waited(record.offset, now) >= self._settings.wait_seconds:
            self._bury(record, Death("waited-in-vain", outcome.reason, 1), dead)
            return bundle
        lane.hold(record.offset, now=now, until=now + outcome.delay.total_seconds())
        return bundle.without_rest(record)

    async def _suspect(self, bundle: Bundle, dead: Deaths, error: StatementTimeout) -> None:
        """A single record takes too long: poison, if it happens often while the database answers others."""
        (lane,) = bundle.lanes
        with suppress(DatabaseError):
            await self._database.read(lambda session: session.now())
            lane.timeouts += 1
        if lane.timeouts >= self._settings.timeouts:
            self._bury(bundle.first, Death("statement-timeout", str(error), lane.timeouts), dead)
        await asyncio.sleep(self._settings.back_off(lane.timeouts))

    def _bury(self, record: Record, death: Death, dead: Deaths) -> None:
        if record in dead:
            raise ConsumerHalted(
                f"{self._service}: {record.topic}/{record.partition}/{record.offset} can be neither applied nor "
                f"dead-lettered ({death.cause}); mend the cause and start again"
            )
        dead[record] = death

    async def _apply(self, bundle: Bundle, dead: Deaths) -> None:
        """One transaction for one bundle; afterwards its lanes know where they are."""
        won, deaths = await self._database.run(lambda session: self._transaction(session, bundle, dead))
        failpoint(f"{self._service}.consume.after_commit")
        for part in bundle.slices:
            if part.lane.place in won:
                part.lane.advance(part.next_position)
                _observe(self._service, part, deaths)
        if lost := [part.lane for part in bundle.slices if part.lane.place not in won]:
            await self._follow(lost)

    async def _transaction(
        self, session: Session, bundle: Bundle, dead: Deaths
    ) -> tuple[frozenset[TopicPartition], Deaths]:
        """The places that were still ours, and what was dead-lettered of them."""
        moves = [(*part.lane.place, part.lane.position, part.next_position) for part in bundle.slices]
        won = await move(session, moves)
        now = await session.now()
        kept = [part for part in bundle.slices if part.lane.place in won]
        received, deaths = _decoded([record for part in kept for record in part.records], dead)
        for name, handler in self._handlers.items():
            if records := received.get(name):
                await handler(records, session=session, now=now)
        for record, death in deaths.items():
            emit_dead_letter(session, record, death)
        await self._count_dead(session, kept, deaths, won)
        session.before_commit(self._before_commit)
        return frozenset(won), deaths

    async def _before_commit(self) -> None:
        failpoint(f"{self._service}.consume.before_commit")

    async def _count_dead(
        self, session: Session, kept: Sequence[Slice], deaths: Deaths, won: Mapping[TopicPartition, int]
    ) -> None:
        """Keep the number of dead letters in a row where a restart does not forget it."""
        counts: dict[TopicPartition, int] = {}
        for part in kept:
            count = won[part.lane.place]
            if not count and not deaths:
                continue
            for record in part.records:
                count = count + 1 if record in deaths else 0
                if count > self._settings.dead_in_row:
                    raise ConsumerHalted(self._too_many(record, deaths[record]))
            counts[part.lane.place] = count
        if counts:
            await set_dead_in_row(session, counts)

    def _too_many(self, record: Record, death: Death) -> str:
        return (
            f"{self._service}: {self._settings.dead_in_row} dead letters in a row on {record.topic}/{record.partition} "
            f"and {record.offset} would be the next ({death.code}: {death.cause}). This looks like a fault of ours, "
            "not of the records: mend it, set dead_in_row to 0 in the positions table, and start again"
        )

    async def _follow(self, lanes: Sequence[Lane]) -> None:
        """Go on from where somebody else moved these partitions to."""
        known = {lane.place: lane.position for lane in lanes}
        positions = await self._database.run(lambda session: resolve(session, known))
        for lane in lanes:
            log.info("consume.moved_by_another", service=self._service, topic=lane.place.topic)
            lane.restart(positions[lane.place])


def _decoded(records: Sequence[Record], dead: Deaths) -> tuple[dict[str, list[Received[Event]]], Deaths]:
    """Events per topic, in lane order, and the records that are none, with why."""
    received: dict[str, list[Received[Event]]] = defaultdict(list)
    deaths: Deaths = {}
    for record in records:
        if dead and record in dead:
            deaths[record] = dead[record]
            continue
        try:
            received[record.topic].append(decode(record))
        except EventUnreadable as error:
            deaths[record] = Death("unreadable", str(error), 1)
    return received, deaths


def _observe(service: str, part: Slice, deaths: Deaths) -> None:
    """Tell metrics and log of a slice that is committed."""
    topic, partition = part.lane.place
    dead = [record for record in part.records if record in deaths] if deaths else []
    metrics.records_handled.labels(service, topic).inc(len(part.records) - len(dead))
    stamped = [record.timestamp for record in part.records if record.unreadable is None]  # the others say 1970
    if stamped:
        metrics.consumer_position_seconds.labels(service, topic, str(partition)).set(stamped[-1].timestamp())
    for record in dead:
        code = deaths[record].code
        metrics.records_dead.labels(service, topic, code).inc()
        log.error("consume.dead_letter", service=service, code=code, topic=topic, partition=partition, at=record.offset)
