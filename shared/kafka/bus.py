"""Apache Kafka as the event log: `shared.bus.Bus` over a cluster.

What is asked without a group (offsets, topics) goes through one client, made when it is first needed and thrown away
when it fails, so that the next question starts from the bootstrap addresses again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import TopicAlreadyExistsError, for_code

from shared.bus import (
    BusUnavailable,
    Listener,
    OffsetRange,
    Record,
    TopicPartition,
    TopicsReport,
    differences,
    member_name,
)
from shared.kafka.client import KafkaLimits, end, quieten_loggers, within
from shared.kafka.consumer import KafkaConsumer
from shared.kafka.producer import KafkaProducer
from shared.kafka.reading import Found, Reading, merged
from shared.topics import Topic

T = TypeVar("T")

CREATED_POLL_SECONDS = 0.05
MILLISECOND = timedelta(milliseconds=1)


class KafkaBus:
    """A cluster. `prefix` goes before each topic and group name there, so that several deployments can share it."""

    def __init__(self, bootstrap: str, *, prefix: str = "", limits: KafkaLimits | None = None) -> None:
        quieten_loggers()
        self._bootstrap = bootstrap
        self._prefix = prefix
        self._limits = limits or KafkaLimits()
        self._client: Any = None
        self._client_lock = asyncio.Lock()

    async def producer(self) -> KafkaProducer:
        producer = KafkaProducer(
            self._bootstrap, prefix=self._prefix, limits=self._limits, topics=self._existing_topics
        )
        await producer.start()
        return producer

    def consumer(self, group: str, topics: Sequence[str], listener: Listener) -> KafkaConsumer:
        limits = self._limits
        settings = {
            **self._reader_settings(),
            "group_id": self._prefix + group,
            "client_id": member_name(),
            "session_timeout_ms": int(limits.session_seconds * 1000),
            "heartbeat_interval_ms": int(limits.heartbeat_seconds * 1000),
            "rebalance_timeout_ms": int(limits.rebalance_seconds * 1000),
            "max_poll_interval_ms": int(limits.max_poll_seconds * 1000),
        }
        return KafkaConsumer(
            settings, topics, listener, prefix=self._prefix, limits=limits, existing=self._existing_topics
        )

    async def ranges(self, topics: Sequence[str]) -> dict[TopicPartition, OffsetRange]:
        async def ask(client: Any) -> dict[TopicPartition, OffsetRange]:
            cluster = await client._client.fetch_all_metadata()
            physical = [self._prefix + topic for topic in topics]
            known = [topic for topic in physical if topic in cluster.topics()]
            await client._client.set_topics(known)
            reading = Reading(client, self._prefix)
            places = [
                reading.physical(TopicPartition(topic.removeprefix(self._prefix), partition))
                for topic in known
                for partition in cluster.partitions_for_topic(topic)
            ]
            begins, ends = await client.beginning_offsets(places), await client.end_offsets(places)
            return {reading.logical(place): OffsetRange(begins[place], ends[place]) for place in places}

        return await self._asked(ask, "asking for offsets")

    async def read(
        self, place: TopicPartition, start: int, *, max_records: int, timeout_seconds: float
    ) -> list[Record]:
        client = AIOKafkaConsumer(**self._reader_settings())
        try:
            await within(self._limits.request_seconds, client.start(), "starting a reader")
            reading = Reading(client, self._prefix)
            client.assign([reading.physical(place)])
            reading.seek(place, start)
            deadline = asyncio.get_running_loop().time() + timeout_seconds
            found: Found = {}
            while not found and (seconds := deadline - asyncio.get_running_loop().time()) > 0:
                first = await reading.awaited([place], seconds)
                found = merged(first, await reading.taken([place], max_records - len(first)))
            return found.get(place, [])
        finally:
            await end(client, self._limits.close_seconds)

    async def committed(self, group: str, topics: Sequence[str]) -> dict[TopicPartition, int]:
        async def ask(admin: Any) -> dict[TopicPartition, int]:
            offsets = await admin.list_consumer_group_offsets(self._prefix + group)
            wanted = {self._prefix + topic for topic in topics}
            return {
                TopicPartition(place.topic.removeprefix(self._prefix), place.partition): found.offset
                for place, found in offsets.items()
                if place.topic in wanted and found.offset >= 0
            }

        return await self._administered(ask, "asking for a group's offsets")

    async def owners(self, group: str) -> dict[TopicPartition, str]:
        async def ask(admin: Any) -> dict[TopicPartition, str]:
            (answer,) = await admin.describe_consumer_groups([self._prefix + group])
            ((code, _, _, _, _, members),) = answer.groups
            if code:
                raise BusUnavailable(f"Kafka did not describe the group {group}: {for_code(code).__name__}")
            return {
                TopicPartition(topic.removeprefix(self._prefix), partition): client
                for _, client, _, _, assignment in members
                for topic, partitions in _assigned(assignment)
                for partition in partitions
            }

        return await self._administered(ask, "asking who reads")

    async def ensure_topics(self, topics: Sequence[Topic]) -> TopicsReport:
        async def ask(admin: Any) -> TopicsReport:
            before = await self._partitions(admin)
            missing = [topic for topic in topics if topic.name not in before]
            if missing:
                await self._create(admin, missing)
            present = [topic for topic in topics if topic.name in before]
            retentions = await self._retentions(admin, [topic.name for topic in present])
            found = [
                sentence
                for topic in present
                for sentence in differences(topic, partitions=before[topic.name], retention=retentions[topic.name])
            ]
            names = tuple(topic.name for topic in missing), tuple(topic.name for topic in present)
            return TopicsReport(created=names[0], present=names[1], differences=tuple(found))

        return await self._administered(ask, "ensuring the topics")

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await end(client, self._limits.close_seconds)

    async def _existing_topics(self) -> set[str]:
        async def ask(client: Any) -> set[str]:
            cluster = await client._client.fetch_all_metadata()
            return {name.removeprefix(self._prefix) for name in cluster.topics() if name.startswith(self._prefix)}

        return await self._asked(ask, "asking for the topics")

    async def _create(self, admin: Any, topics: Sequence[Topic]) -> None:
        replicas = await self._replicas(admin)
        new = [
            NewTopic(self._prefix + topic.name, topic.partitions, replicas, topic_configs=_configs(topic))
            for topic in topics
        ]
        answer = await admin.create_topics(new)
        for name, code, *message in answer.topic_errors:
            if code and for_code(code) is not TopicAlreadyExistsError:
                raise BusUnavailable(f"Kafka did not create {name}: {for_code(code).__name__} {message}")
        wanted = {topic.name for topic in topics}
        while not wanted <= (await self._partitions(admin)).keys():  # noqa: ASYNC110 - the broker has no event for us
            await asyncio.sleep(CREATED_POLL_SECONDS)

    async def _replicas(self, admin: Any) -> int:
        """The cluster's own default: aiokafka's requests are too old to leave the choice to the broker."""
        broker = (await admin.describe_cluster())["brokers"][0]["node_id"]
        (configs,) = (await self._configs(admin, ConfigResourceType.BROKER, [str(broker)])).values()
        return int(configs["default.replication.factor"])

    async def _partitions(self, admin: Any) -> dict[str, int]:
        """Topics that have a leader for each partition, and how many those are."""
        return {
            found["topic"].removeprefix(self._prefix): len(found["partitions"])
            for found in await admin.describe_topics()
            if found["topic"].startswith(self._prefix)
            and not found["error_code"]
            and all(partition["leader"] >= 0 for partition in found["partitions"])
        }

    async def _retentions(self, admin: Any, topics: Sequence[str]) -> dict[str, timedelta | None]:
        physical = [self._prefix + topic for topic in topics]
        found = await self._configs(admin, ConfigResourceType.TOPIC, physical)
        return {name.removeprefix(self._prefix): _retention(configs) for name, configs in found.items()}

    async def _configs(self, admin: Any, kind: ConfigResourceType, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """The settings of topics or brokers by name. An answer carries its error instead of raising it."""
        found: dict[str, dict[str, str]] = {}
        for answer in await admin.describe_configs([ConfigResource(kind, name) for name in names]):
            for code, message, _, name, entries in answer.resources:
                if code:
                    raise BusUnavailable(f"Kafka did not describe {name}: {for_code(code).__name__} {message}")
                found[name] = {entry[0]: entry[1] for entry in entries}
        return found

    async def _asked(self, ask: Callable[[Any], Awaitable[T]], what: str) -> T:
        """Ask through the client without a group."""
        async with self._client_lock:  # held for a bounded time: starting is
            if self._client is None:
                self._client = await self._started(AIOKafkaConsumer(**self._reader_settings()))
            client = self._client
        try:
            return await within(self._limits.request_seconds, ask(client), what)
        except BusUnavailable:
            if self._client is client:
                await self.close()
            raise

    async def _administered(self, ask: Callable[[Any], Awaitable[T]], what: str) -> T:
        """Ask through an admin client of its own: rare."""
        admin = await self._started(
            AIOKafkaAdminClient(
                bootstrap_servers=self._bootstrap, request_timeout_ms=int(self._limits.request_seconds * 1000)
            )
        )
        try:
            return await within(self._limits.request_seconds, ask(admin), what)
        finally:
            await end(admin, self._limits.close_seconds)

    async def _started(self, client: Any) -> Any:
        try:
            await within(self._limits.request_seconds, client.start(), "no broker answers")
        except BaseException:
            await end(client, self._limits.close_seconds)
            raise
        return client

    def _reader_settings(self) -> dict[str, Any]:
        """Offsets are never committed or chosen by aiokafka itself. Nobody here writes with transactions, so every
        record is a committed one: waiting for a stranger's transaction to end would only stall."""
        return {
            "bootstrap_servers": self._bootstrap,
            "group_id": None,
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "isolation_level": "read_uncommitted",
            "request_timeout_ms": int(self._limits.request_seconds * 1000),
        }


def _assigned(assignment: bytes) -> list[tuple[str, list[int]]]:
    """A member's partitions by topic; a member that is just joining has none yet."""
    if not assignment:
        return []
    found: list[tuple[str, list[int]]] = ConsumerProtocolMemberAssignment.decode(assignment).assignment
    return found


def _configs(topic: Topic) -> dict[str, str]:
    if topic.retention is None:
        return {"cleanup.policy": "compact"}
    return {"cleanup.policy": "delete", "retention.ms": str(topic.retention // MILLISECOND)}


def _retention(configs: dict[str, str]) -> timedelta | None:
    """None: kept by compaction; `timedelta.max`: for ever."""
    if configs["cleanup.policy"] == "compact":
        return None
    milliseconds = int(configs["retention.ms"])
    return timedelta.max if milliseconds < 0 else timedelta(milliseconds=milliseconds)
