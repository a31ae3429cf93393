"""Connections to a cluster: how long anything may take, and starting and ending aiokafka's objects safely.

Each of aiokafka's objects is started once. One that failed to start is thrown away, never used or started again; and
because a client asks only the brokers it already knows, one that has been silent for long is replaced too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka.errors import KafkaError

from shared.bus import BusUnavailable

T = TypeVar("T")
Topics = Callable[[], Awaitable[set[str]]]  # which topics exist, without the prefix

SAME_MESSAGE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class KafkaLimits:
    """How long anything may take, in seconds."""

    request_seconds: float = 10.0  # a broker that has said nothing for so long is gone
    publish_seconds: float = 15.0  # more than a request: one failover of a leader is ridden out
    session_seconds: float = (
        10.0  # a member that was killed holds its partitions so long; a pause of ours must be shorter
    )
    heartbeat_seconds: float = 3.0  # a third of the session: two may be lost
    rebalance_seconds: float = 60.0  # the consumer's bounded drain (20 s at worst), three times
    max_poll_seconds: float = 300.0  # a consumer that did not fetch for so long leaves its group
    stale_seconds: float = 30.0  # a consumer that heard nothing for so long is built anew

    @property
    def drain_seconds(self) -> float:
        """How long a rebalance waits for `revoked`: what is left is for joining again."""
        return self.rebalance_seconds * 0.8

    @property
    def close_seconds(self) -> float:
        """Ending waits for a request under way."""
        return self.request_seconds + 2.0


async def within(seconds: float, work: Awaitable[T], what: str) -> T:
    """What `work` gives. Raises `BusUnavailable` after `seconds`, or for what aiokafka raises: it may be cured."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as error:
        raise BusUnavailable(f"Kafka did not answer within {seconds:g} s: {what}") from error
    except (KafkaError, OSError) as error:
        raise BusUnavailable(f"Kafka: {what}: {type(error).__name__}: {error}") from error


async def end(consumer: Any, seconds: float) -> None:
    """End one of aiokafka's consumers or admin clients, whatever state it or the broker is in."""
    stop = consumer.stop() if hasattr(consumer, "stop") else consumer.close()
    await _ended(stop, seconds)
    await _ended(consumer._client.close(), seconds)  # a stop that was cut short leaves it open


async def end_producer(producer: Any, seconds: float) -> None:
    """End aiokafka's producer. What could not be sent by then is given up: it must not be sent after we said so.

    An idempotent producer repeats for as long as an outage lasts, so its sending task is ended too.
    """
    await _ended(producer.stop(), seconds)
    await _ended(producer.client.close(), seconds)
    sending = producer._sender.sender_task
    if sending is not None and not sending.done():
        sending.cancel()
        await asyncio.wait([sending], timeout=seconds)


async def _ended(stop: Awaitable[None], seconds: float) -> None:
    """Wait for an ending. aiokafka's may end in a `CancelledError` nobody asked for, for want of a broker."""
    task = asyncio.ensure_future(stop)
    try:
        await asyncio.wait([task], timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
    with suppress(asyncio.CancelledError, KafkaError, OSError, AttributeError):
        if task.done():
            task.result()


class OncePerWhile(logging.Filter):
    """Lets each message through once in a while: in an outage aiokafka writes up to a thousand lines a second."""

    def __init__(self, seconds: float = SAME_MESSAGE_SECONDS) -> None:
        super().__init__()
        self._seconds = seconds
        self._said_at: dict[tuple[str, object], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        message = (record.name, record.msg)
        if now - self._said_at.get(message, -self._seconds) < self._seconds:
            return False
        self._said_at[message] = now
        return True


def quieten_loggers() -> None:
    """Limit how often aiokafka's loggers repeat themselves: each of them, as a filter is not inherited."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if not name.startswith("aiokafka") or not isinstance(logger, logging.Logger):
            continue
        if not any(isinstance(known, OncePerWhile) for known in logger.filters):
            logger.addFilter(OncePerWhile())
