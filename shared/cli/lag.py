"""`baton lag`: how far each service is behind, in messages and in seconds.

By the position in the service's own database, which is the truth, against the log's end. Seconds: the age of the oldest
record that is not applied yet, so that a silent topic is not late and one stuck record is.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from shared import positions
from shared.bus import Bus, OffsetGap, OffsetRange, TopicMissing, TopicPartition
from shared.cli.options import Output, show_json, show_table
from shared.cli.stored import stored
from shared.db import Database, Session
from shared.lock import running_server
from shared.service import open_bus, service_names
from shared.settings import Settings
from shared.topics import Topic, consumed_by, group

OVER = 2  # exit code: further behind than --fail-over allows
READ_SECONDS = 5.0
READERS = 4  # at once: on Kafka each is a connection


@dataclass(frozen=True, slots=True)
class Lag:
    """One partition of one service. `seconds` None: unknown. `owner`: host and process; None: nobody reads it now.

    `trouble`: the position names an offset that the log does not hold; the consumer stops there.
    """

    service: str
    topic: str
    partition: int
    position: int
    end: int
    messages: int
    seconds: float | None
    owner: str | None
    trouble: str | None

    def is_over(self, seconds: float) -> bool:
        return self.trouble is not None or (self.messages > 0 and (self.seconds is None or self.seconds > seconds))


def run_lag(settings: Settings, *, service: str | None, fail_over_seconds: float | None, output: Output) -> int:
    """Print it; 2 if a partition is further behind than that."""
    lags = asyncio.run(_lags(settings, [service] if service else service_names()))
    over = [] if fail_over_seconds is None else [lag for lag in lags if lag.is_over(fail_over_seconds)]
    messages = sum(lag.messages for lag in lags)
    seconds = max((lag.seconds or 0.0 for lag in lags), default=0.0)
    if output is Output.JSON:
        show_json({"messages": messages, "seconds": seconds, "over": len(over), "partitions": list(map(asdict, lags))})
    else:
        columns = list(Lag.__dataclass_fields__)
        show_table(columns, [[asdict(lag)[column] for column in columns] for lag in lags])
        print(f"{messages} messages behind, the oldest for {seconds:g} s")
        for lag in over:
            print(f"over {fail_over_seconds:g} s: {lag.service} {lag.topic}/{lag.partition}")
    return OVER if over else 0


async def _lags(settings: Settings, services: Sequence[str]) -> list[Lag]:
    bus = open_bus(settings, read_only=True)
    try:
        async with stored(settings, services) as databases:
            return [lag for name in services for lag in await _of_service(settings, bus, name, databases[name])]
    finally:
        await bus.close()


async def _of_service(settings: Settings, bus: Bus, service: str, database: Database) -> list[Lag]:
    topics = {topic.name: topic for topic in consumed_by(service)}
    known = await database.read(positions.stored)  # first: what is published meanwhile is behind, never ahead
    ranges = await bus.ranges(sorted(topics))
    if missing := topics.keys() - {place.topic for place in ranges}:
        raise TopicMissing(f"{', '.join(sorted(missing))} does not exist: run `baton topics ensure`")
    owners = await _owners(settings, bus, service, ranges)
    now = await database.read(Session.now)
    turn = asyncio.Semaphore(READERS)

    async def lag(place: TopicPartition, held: OffsetRange) -> Lag:
        position = known.get(place, _start(topics[place.topic], service, held))
        async with turn:
            return await _of_partition(bus, (service, owners.get(place)), place, position, held, now)

    return await asyncio.gather(*(lag(place, held) for place, held in sorted(ranges.items())))


async def _of_partition(
    bus: Bus, who: tuple[str, str | None], place: TopicPartition, position: int, held: OffsetRange, now: datetime
) -> Lag:
    messages = max(0, held.end - position)
    trouble = None
    seconds: float | None = 0.0
    if not held.begin <= position <= held.end:
        trouble, seconds = f"the log holds {held.begin} to {held.end}", None
    elif messages:
        seconds = await _age(bus, place, position, now)
    service, owner = who
    return Lag(service, *place, position, held.end, messages, seconds, owner, trouble)


async def _age(bus: Bus, place: TopicPartition, position: int, now: datetime) -> float | None:
    """How long the record at this position has been in the log; None if that cannot be told."""
    try:
        found = await bus.read(place, position, max_records=1, timeout_seconds=READ_SECONDS)
    except OffsetGap:  # deleted by its retention, just now
        return None
    if not found or found[0].unreadable is not None:
        return None
    return round(max(0.0, (now - found[0].timestamp).total_seconds()), 1)


def _start(read: Topic, service: str, held: OffsetRange) -> int:
    """Where a service begins that has no position here yet."""
    return held.begin if read.consumers[service] == "earliest" else held.end


async def _owners(
    settings: Settings, bus: Bus, service: str, places: Mapping[TopicPartition, OffsetRange]
) -> Mapping[TopicPartition, str]:
    if settings.profile == "cluster":
        return await bus.owners(group(service))
    holder = running_server(settings.data_directory)
    return dict.fromkeys(places, f"{socket.gethostname()}-{holder.pid}") if holder else {}
