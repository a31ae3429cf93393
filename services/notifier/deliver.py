"""The role that sends: claims what is due, sends it outside any transaction, records what came of it.

Each channel has a queue and slots of its own, so that a receiver that hangs keeps nobody else waiting. A claim is a
lease that outlives the longest attempt: of a process that died, the next one takes over, and sends again under the same
id. That is the one repeat we allow.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import structlog

from services.notifier.channels import Send, SendFailed, SendRefused
from services.notifier.compose import Channel
from services.notifier.handlers import DELIVERIES
from services.notifier.store import queue
from services.notifier.store.queue import Claimed
from shared.db import Database, DatabaseError, Session
from shared.failpoints import failpoint
from shared.heartbeat import beat, beating_apart
from shared.telemetry import metrics, tracing

ERROR_CHARACTERS = 500
SLOTS: Mapping[Channel, int] = {
    Channel.EMAIL: 8,
    Channel.SLACK: 1,  # Slack takes one message a second from a webhook, and short bursts
    Channel.AUTOMATION: 8,
}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DeliverSettings:
    """`back_off_seconds`: after each failed attempt; one more failure and the delivery is dead.

    `lease_seconds` is more than the longest attempt (20 s for a mail) and the time to record it.
    """

    back_off_seconds: tuple[float, ...] = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0)
    jitter: float = 0.2
    lease_seconds: float = 90.0
    poll_seconds: float = 1.0
    batch: int = 100

    def wait(self, attempts: int, asked_seconds: float) -> timedelta | None:
        """How long to wait after so many attempts, or longer if the receiver asked for it; None: no more attempts."""
        if attempts > len(self.back_off_seconds):
            return None
        jitter = 1 + self.jitter * (2 * random.random() - 1)
        return timedelta(seconds=max(self.back_off_seconds[attempts - 1] * jitter, asked_seconds))


async def deliver(
    stop: asyncio.Event, *, database: Database, senders: Mapping[Channel, Send], settings: DeliverSettings
) -> None:
    """Send what is due on every channel until `stop` is set; what is being sent then is finished first."""
    lines = (_Line(database, channel, senders.get(channel, _unconfigured), settings) for channel in Channel)
    async with asyncio.TaskGroup() as group:
        for line in lines:
            group.create_task(line.run(stop))


async def _unconfigured(_: object) -> None:
    raise SendRefused("the channel is no longer configured")


class _Line:
    """One channel's deliveries in this process."""

    def __init__(self, database: Database, channel: Channel, send: Send, settings: DeliverSettings) -> None:
        self._database = database
        self._channel = channel
        self._send = send
        self._settings = settings
        self._hint = database.signal(f"{DELIVERIES}.{channel}")
        self._sending: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set and what is being sent has ended; cancelled, it leaves that to the end of the lease."""
        stopped = asyncio.create_task(stop.wait())
        try:
            with beating_apart(self._channel):
                while not stop.is_set():
                    beat()
                    self._hint.clear()
                    await self._wait(stopped, await self._round())
            if self._sending:
                await asyncio.wait(self._sending)
        finally:
            for task in (stopped, *self._sending):
                task.cancel()
            await asyncio.gather(stopped, *self._sending, return_exceptions=True)

    async def _round(self) -> float:
        """Start what is due, as far as slots are free; how many seconds until there may be more."""
        free = SLOTS[self._channel] - len(self._sending)
        if free <= 0:
            return self._settings.poll_seconds
        try:
            until_next = await self._database.read(partial(queue.seconds_to_next, channel=self._channel))
            if until_next != 0:
                return min(until_next or self._settings.poll_seconds, self._settings.poll_seconds)
            claimed = await self._database.run(partial(self._claim, free))
        except DatabaseError as error:
            log.warning("deliver.waits", channel=self._channel, cause=type(error).__name__)
            return self._settings.poll_seconds
        for each in claimed:
            task = asyncio.create_task(self._attempt(each))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        return self._settings.poll_seconds

    async def _claim(self, free: int, session: Session) -> list[Claimed]:
        late = await queue.give_up_late(session, self._channel, size=self._settings.batch)
        if late:
            self._count("stale", len(late))
            log.warning("delivery.stale", channel=self._channel, delivery_ids=late)
        lease = timedelta(seconds=self._settings.lease_seconds)
        return await queue.claim(session, self._channel, token=secrets.token_hex(8), size=free, lease=lease)

    async def _attempt(self, claimed: Claimed) -> None:
        with tracing(claimed.item.traceparent):
            try:
                failpoint("notifier.before_send")
                await self._send(claimed.item)
                failpoint("notifier.after_send")
            except SendRefused as error:
                await self._dead(claimed, str(error))
            except SendFailed as error:
                await self._failed(claimed, str(error), error.retry_after_seconds)
            except Exception as error:  # a bug of a channel must not end the others' deliveries
                log.exception("delivery.bug", delivery_id=claimed.item.delivery_id)
                await self._failed(claimed, f"{type(error).__name__} in channel {self._channel}", 0.0)
            else:
                if await self._record(queue.record_delivered, claimed):
                    self._count("delivered")
                    log.info("delivery.delivered", delivery_id=claimed.item.delivery_id, attempts=claimed.attempts)

    async def _failed(self, claimed: Claimed, error: str, asked_seconds: float) -> None:
        wait = self._settings.wait(claimed.attempts, asked_seconds)
        if wait is None:
            return await self._dead(claimed, error)
        record = partial(queue.record_failure, error=_kept(error), wait=wait)
        if await self._record(record, claimed):
            metrics.deliveries_failed.labels(self._database.service, self._channel).inc()
            log.info("delivery.failed", delivery_id=claimed.item.delivery_id, attempts=claimed.attempts)

    async def _dead(self, claimed: Claimed, error: str) -> None:
        """Given up, with an alarm: somebody must look."""
        if await self._record(partial(queue.record_dead, error=_kept(error)), claimed):
            self._count("dead")
            log.error("delivery.dead", delivery_id=claimed.item.delivery_id, attempts=claimed.attempts)

    async def _record(self, record: Callable[[Session, Claimed], Awaitable[bool]], claimed: Claimed) -> bool:
        """Write the outcome down, for as long as the lease lasts; after that it is sent again. Whether it was ours."""
        deadline = asyncio.get_running_loop().time() + self._settings.lease_seconds / 2
        while True:
            try:
                return await self._database.run(lambda session: record(session, claimed))
            except DatabaseError as error:
                log.warning("delivery.not_recorded", delivery_id=claimed.item.delivery_id, cause=type(error).__name__)
                if asyncio.get_running_loop().time() >= deadline:
                    return False
            await asyncio.sleep(self._settings.poll_seconds)

    async def _wait(self, stopped: asyncio.Task[bool], seconds: float) -> None:
        """Until something may have changed: a row was written, a slot came free, time passed, or the end."""
        hinted = asyncio.create_task(self._hint.wait())
        try:
            await asyncio.wait({hinted, stopped, *self._sending}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hinted.cancel()
            with suppress(asyncio.CancelledError):
                await hinted

    def _count(self, state: str, number: int = 1) -> None:
        metrics.deliveries_ended.labels(self._database.service, self._channel, state).inc(number)


def _kept(error: str) -> str:
    """What of an error is kept: one line, without what a database would refuse."""
    return " ".join(error.replace("\x00", "").split())[:ERROR_CHARACTERS]
