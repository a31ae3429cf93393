"""Publishing: idempotent, acknowledged by every in-sync replica, with a verdict for each message.

The deadline is ours, because an idempotent producer of aiokafka repeats for as long as an outage lasts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    RecordListTooLargeError,
    UnknownTopicOrPartitionError,
)

from shared.bus import MAX_MESSAGE_BYTES, BusError, BusUnavailable, Message, MessageRefused, TopicMissing
from shared.kafka.client import KafkaLimits, Topics, end_producer, within

BATCH_BYTES = 512 * 1024  # below the broker's limit, so that it never refuses small records for their number
TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


class KafkaProducer:
    """See `shared.bus.Producer`. `topics` tells which exist: aiokafka would wait in vain for one that does not."""

    def __init__(self, bootstrap: str, *, prefix: str, limits: KafkaLimits, topics: Topics) -> None:
        self._bootstrap = bootstrap
        self._prefix = prefix
        self._limits = limits
        self._topics = topics
        self._known: set[str] = set()
        self._client: Any = None

    async def start(self) -> None:
        client = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            acks="all",
            enable_idempotence=True,
            compression_type=None,
            max_batch_size=BATCH_BYTES,
            max_request_size=MAX_MESSAGE_BYTES,
            request_timeout_ms=int(self._limits.request_seconds * 1000),
        )
        try:
            await within(self._limits.request_seconds, client.start(), "starting a producer")
        except BaseException:
            await end_producer(client, self._limits.close_seconds)
            raise
        self._client = client

    async def publish(self, messages: Sequence[Message]) -> list[BusError | None]:
        deadline = asyncio.get_running_loop().time() + self._limits.publish_seconds
        try:
            async with asyncio.timeout_at(deadline):
                await self._learn_topics(messages)
        except (BusUnavailable, TimeoutError) as error:
            return [BusUnavailable(str(error)) for _ in messages]
        verdicts = await self._sent(messages, deadline)
        for index, verdict in enumerate(verdicts):
            if isinstance(verdict, _BatchTooLarge):
                verdicts[index] = await self._sent_alone(messages[index], deadline)
        return verdicts

    async def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await end_producer(client, self._limits.close_seconds)

    async def _learn_topics(self, messages: Sequence[Message]) -> None:
        if not {message.topic for message in messages} <= self._known:
            self._known = await self._topics()

    async def _sent(self, messages: Sequence[Message], deadline: float) -> list[BusError | None]:
        verdicts: list[BusError | None] = [BusUnavailable("not sent before the deadline")] * len(messages)
        sent: dict[asyncio.Future[Any], int] = {}
        try:
            async with asyncio.timeout_at(deadline):
                for index, message in enumerate(messages):
                    if message.topic not in self._known:
                        verdicts[index] = TopicMissing(f"{message.topic} does not exist: run `baton topics ensure`")
                        continue
                    try:
                        sent[await self._send(message)] = index
                    except TOO_LARGE as error:
                        verdicts[index] = MessageRefused(str(error))
                await asyncio.wait(sent) if sent else None
        except TimeoutError:
            pass  # the verdicts say which ones that left in the dark
        except (KafkaError, OSError) as error:
            verdicts = [_verdict(error) if isinstance(verdict, BusUnavailable) else verdict for verdict in verdicts]
        for future, index in sent.items():
            verdicts[index] = _outcome(future)
        return verdicts

    async def _send(self, message: Message) -> asyncio.Future[Any]:
        """Queue a message; the future of its acknowledgement. Waits while its partition's queue is full."""
        assert self._client is not None, "publish before start, or after close"
        future: asyncio.Future[Any] = await self._client.send(
            self._prefix + message.topic, value=message.value, key=message.key, headers=list(message.headers)
        )
        return future

    async def _sent_alone(self, message: Message, deadline: float) -> BusError | None:
        """The broker refused a whole batch for its size: ask again for one message, with a producer of its own.

        A refusal leaves a hole in an idempotent producer's sequence, so that the old one would be refused for ever.
        """
        await self.close()
        try:
            await self.start()
        except BusError as error:
            return error
        (verdict,) = await self._sent([message], deadline)
        return MessageRefused(str(verdict)) if isinstance(verdict, _BatchTooLarge) else verdict


class _BatchTooLarge(BusUnavailable):
    """The broker refused a batch for its size; which of its messages is to blame is not known yet."""


def _outcome(future: asyncio.Future[Any]) -> BusError | None:
    if not future.done():
        future.add_done_callback(_seen)
        return BusUnavailable("not acknowledged before the deadline; it may still be published")
    if future.cancelled():
        return BusUnavailable("given up; it may still be published")
    error = future.exception()
    return None if error is None else _verdict(error)


def _verdict(error: BaseException) -> BusError:
    match error:
        case _ if isinstance(error, TOO_LARGE):
            return _BatchTooLarge(f"the broker refused the batch: {error}")
        case UnknownTopicOrPartitionError():
            return TopicMissing(f"{error}: run `baton topics ensure`")
        case OutOfOrderSequenceNumber():
            return BusUnavailable("the producer's sequence is broken: close it and take a new one")
        case _:
            return BusUnavailable(f"{type(error).__name__}: {error}")


def _seen(future: asyncio.Future[Any]) -> None:
    """Nobody waits any more: take note, so that asyncio does not report it as forgotten."""
    if not future.cancelled():
        future.exception()
