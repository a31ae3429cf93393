"""`baton topics ensure` and `baton tail`: the event log, for people. No group is joined, so nobody is disturbed."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from shared.bus import Bus, Record, TopicMissing, TopicPartition, TopicsReport
from shared.cli.options import Output, show_json
from shared.lock import running_server, sole_server
from shared.nearest import did_you_mean
from shared.service import UnknownName, open_bus
from shared.settings import Settings
from shared.topics import TOPICS

PAGE = 500
READ_SECONDS = 10.0
FOLLOW_SECONDS = 0.5
AGE = re.compile(r"(\d+)([smhd])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records: the last `count`, none older than `since`, each header as said."""

    count: int
    since: datetime | None
    where: Mapping[str, str]

    @classmethod
    def of(cls, *, count: int, since: str | None, where: Sequence[str]) -> Wanted:
        """From the words of a command line. Raises `UnknownName`."""
        for pair in where:
            if "=" not in pair:
                raise UnknownName(f"--where {pair}: expected header=value, e.g. ce_type=mql.qualified")
        return cls(count, instant(since) if since else None, dict(pair.split("=", 1) for pair in where))

    def holds(self, record: Record) -> bool:
        headers = dict(record.headers)
        return (self.since is None or record.timestamp >= self.since) and all(
            headers.get(name) == value.encode() for name, value in self.where.items()
        )


def with_bus(settings: Settings, work: Callable[[Bus], Awaitable[T]], *, read_only: bool = True) -> T:
    """Run `work(bus)`. Read-only, an embedded log is neither made nor taken from a running server."""

    async def opened() -> T:
        bus = open_bus(settings, read_only=read_only)
        try:
            return await work(bus)
        finally:
            await bus.close()

    return asyncio.run(opened())


def ensure_topics(settings: Settings, output: Output) -> int:
    """Print what was created, was there, or differs; 1 if something differs."""
    report = _ensured(settings)
    if output is Output.JSON:
        show_json({"created": report.created, "present": report.present, "differences": report.differences})
    else:
        for word, lines in (("created", report.created), ("present", report.present), ("differs", report.differences)):
            for line in lines:
                print(f"{word:8} {line}")
    return 1 if report.differences else 0


def tail_topic(settings: Settings, topic: str, wanted: Wanted, *, follow: bool, output: Output) -> None:
    """Print the last records of a topic; with `follow`, those to come, until Ctrl-C."""
    known = [one.name for one in TOPICS]
    if topic not in known:
        raise UnknownName(f"unknown topic {topic!r}{did_you_mean(topic, known)}; known: {', '.join(known)}")

    async def work(bus: Bus) -> None:
        ends: dict[TopicPartition, int] = {}
        found = [record async for record in records(bus, topic, ends, back=None if wanted.where else wanted.count)]
        found = sorted(filter(wanted.holds, found), key=lambda record: (record.timestamp, record.place, record.offset))
        for record in found[-wanted.count :] if wanted.count else []:
            show_record(record, output)
        while follow:
            await asyncio.sleep(FOLLOW_SECONDS)
            async for record in records(bus, topic, ends):
                if wanted.holds(record):
                    show_record(record, output)

    with suppress(KeyboardInterrupt):
        with_bus(settings, work)


async def records(
    bus: Bus, topic: str, ends: dict[TopicPartition, int], *, back: int | None = None
) -> AsyncIterator[Record]:
    """The records from `ends` to the end of each partition; `ends` moves on.

    A partition not in `ends` starts at its first record, or `back` records before its end. Raises `TopicMissing`.
    """
    ranges = await bus.ranges([topic])
    if not ranges:
        raise TopicMissing(f"{topic} does not exist: run `baton topics ensure`")
    for place, held in sorted(ranges.items()):
        first = held.begin if back is None else max(held.begin, held.end - back)
        position = ends.get(place, first)
        while position < held.end:
            page = await bus.read(place, position, max_records=PAGE, timeout_seconds=READ_SECONDS)
            if not page:
                break
            for record in page:
                yield record
            position = page[-1].offset + 1
        ends[place] = max(position, held.end)


def plain_record(record: Record) -> dict[str, object]:
    """A record as JSON has it; bytes that are no text are base64."""
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp.isoformat(),
        "key": _text(record.key),
        "headers": {name: _text(value) for name, value in record.headers},
        "value": _value(record.value),
    }


def show_record(record: Record, output: Output) -> None:
    """One line."""
    plain = plain_record(record)
    if output is Output.JSON:
        show_json(plain)
        return
    headers = dict(record.headers)
    kind = headers.get("ce_type", b"").decode(errors="replace")
    value = json.dumps(plain["value"])
    print(f"{plain['timestamp']}  {record.partition}/{record.offset}  {plain['key']}  {kind}  {value}", flush=True)


def _ensured(settings: Settings) -> TopicsReport:
    """Beside a running embedded server, which made its topics at its start, they are only compared."""
    if settings.profile == "cluster":
        return with_bus(settings, _make, read_only=False)
    if running_server(settings.data_directory) is not None:
        return with_bus(settings, _compared)
    with sole_server(settings.data_directory, "baton topics ensure"):
        return with_bus(settings, _make, read_only=False)


async def _make(bus: Bus) -> TopicsReport:
    return await bus.ensure_topics(TOPICS)


async def _compared(bus: Bus) -> TopicsReport:
    names = [place.topic for place in await bus.ranges([topic.name for topic in TOPICS])]
    wrong = [topic for topic in TOPICS if names.count(topic.name) != topic.partitions]
    return TopicsReport(
        created=(),
        present=tuple(topic.name for topic in TOPICS if topic not in wrong),
        differences=tuple(
            f"{topic.name} has {names.count(topic.name)} partitions, not {topic.partitions}" for topic in wrong
        ),
    )


def instant(text: str) -> datetime:
    """A time, or an age before now. Raises `UnknownName`."""
    age = AGE.fullmatch(text)
    if age:
        return datetime.now(UTC) - timedelta(**{UNITS[age[2]]: int(age[1])})
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise UnknownName(
            f"--since {text}: expected a time like 2026-03-01T09:00Z, or an age: 90s, 15m, 2h, 3d"
        ) from None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _text(value: bytes | None) -> str | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def _value(value: bytes | None) -> object:
    try:
        return None if value is None else json.loads(value)
    except ValueError:
        return _text(value)
