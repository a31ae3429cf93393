"""How fast the scorer is, as a part of what the fastest honest programs reach (floors.py).

    python -m tests.bench.scorer [--activities 300000] [--leads 100000] [--rounds 3] [--lanes 4]

All read the same records (bytes, as they come from Kafka) from memory, 1000 a transaction, a task per lane, on a
PostgreSQL of their own with fsync. Floors and product alternate; only the ratio of a round says something, as the
machine's speed changes from minute to minute.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import statistics
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg

from services.scoring.handlers import HANDLERS
from shared.agreement import sha256
from shared.bus import Record, TopicPartition
from shared.db import Database, Session
from shared.envelope import decode, encode
from shared.events import ActivityRecorded, AgreementPublished, Event, Scalar
from shared.lanes import Bundle, Lane
from shared.positions import resolve
from shared.settle import ConsumeSettings, Settler
from shared.sql import sql
from tests.bench.floors import BATCH, SCHEMA, Floor, bare, same_rows
from tests.support import ROOT, dev_server, fresh_postgresql_database, migrated

TOPIC = ActivityRecorded.topic
REPEATED = 0.01
START = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
SPAN = timedelta(days=1)  # of all activities of a run
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"

KINDS: tuple[tuple[int, str, dict[str, Scalar], dict[str, Scalar]], ...] = (
    (20, "page_viewed", {"path": "/pricing"}, {}),
    (20, "page_viewed", {"path": "/robots/r2"}, {}),
    (25, "page_viewed", {"path": "/blog/why-robots"}, {}),
    (3, "page_viewed", {"path": "/careers"}, {}),
    (12, "email_clicked", {"campaign": "spring"}, {}),
    (10, "email_opened", {"campaign": "spring"}, {}),
    (4, "webinar_attended", {"webinar": "robots-101"}, {}),
    (2, "form_submitted", {"form": "robotics whitepaper"}, {}),
    (
        3,
        "profile_updated",
        {},
        {"company_size": 500, "industry": "logistics", "country": "US", "title": "Plant manager"},
    ),
    (1, "demo_requested", {}, {}),
)

Lanes = Sequence[Sequence[Record]]
Run = Callable[[Lanes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Options:
    activities: int
    leads: int
    rounds: int
    lanes: int
    only: str


class Feed:
    """Activities of many leads, evenly spread over leads and time, a few of them sent again; a lead keeps its lane."""

    def __init__(self, options: Options) -> None:
        self._random = random.Random(7)
        self._options = options
        self._step = SPAN / options.activities
        self._made = 0
        self._offsets = [0] * options.lanes
        self._last: dict[int, tuple[bytes, bytes, tuple[tuple[str, bytes], ...]]] = {}

    def take(self, number: int) -> Lanes:
        lanes: list[list[Record]] = [[] for _ in range(self._options.lanes)]
        for _ in range(number):
            lead = self._random.randrange(self._options.leads)
            lane = lead % self._options.lanes
            if lane not in self._last or self._random.random() >= REPEATED:
                self._last[lane] = self._activity(lead)
            key, value, headers = self._last[lane]
            lanes[lane].append(Record(TOPIC, lane, self._offsets[lane], START, key, value, headers))
            self._offsets[lane] += 1
        return lanes

    def _activity(self, lead: int) -> tuple[bytes, bytes, tuple[tuple[str, bytes], ...]]:
        self._made += 1
        ((_, kind, properties, attributes),) = self._random.choices(KINDS, [weight for weight, *_ in KINDS])
        at = START + self._step * self._made
        event = ActivityRecorded(
            lead_id=f"lead_01900000-0000-7000-8000-{lead * 2654435761 % 2**32:012x}",
            activity_id=f"act_{self._random.getrandbits(128):032x}",
            kind=kind,
            source="segment",
            source_id=f"ajs-next-{self._random.getrandbits(64):016x}",
            occurred_at=at - timedelta(seconds=2),
            received_at=at,
            agreement_version=1,
            properties=properties,
            attributes=attributes,
        )
        message = encode(event, event_id=event.activity_id, source="/baton/scoring", time=at, traceparent=TRACE)
        return message.key, message.value, message.headers


class Product:
    """The scorer's own handlers, in the spine's transactions."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._settler = Settler(database, HANDLERS, ConsumeSettings(batch=BATCH))
        self._lanes: list[Lane] = []

    async def start(self, lanes: int) -> None:
        places = [TopicPartition(TOPIC, lane) for lane in range(lanes)]
        agreements = TopicPartition("baton.agreements.v1", 0)
        await self._database.run(lambda session: resolve(session, dict.fromkeys([*places, agreements], 0)))
        self._lanes = [Lane(place, 0) for place in places]
        content = (ROOT / "deploy/agreements/acme.yaml").read_text()
        published = Lane(agreements, 0, deque([_record(_published(content))]))
        await self._settler.settle(Bundle([published.head(1)]))

    async def __call__(self, lanes: Lanes) -> None:
        for lane, records in zip(self._lanes, lanes, strict=True):
            lane.records.extend(records)
        await asyncio.gather(*(self._drain(lane) for lane in self._lanes))

    async def _drain(self, lane: Lane) -> None:
        while lane.records:
            await self._settler.settle(Bundle([lane.head(BATCH)]))


def _published(content: str) -> AgreementPublished:
    since = START - timedelta(days=400)
    return AgreementPublished(
        agreement="acme",
        version=1,
        sha256=sha256(content),
        content=content,
        signatures=[],
        published_at=since,
        effective_from=since,
    )


def _record(event: Event) -> Record:
    message = encode(event, event_id="1", source="/baton/handoff", time=START, traceparent=TRACE)
    record = Record(message.topic, 0, 0, START, message.key, message.value, message.headers)
    decode(record)
    return record


async def _rate(run: Run, lanes: Lanes) -> float:
    """Records a second."""
    started = time.perf_counter()
    await run(lanes)
    return sum(map(len, lanes)) / (time.perf_counter() - started)


async def compare(address: str, options: Options) -> None:
    database = migrated(address, "scoring")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(SCHEMA)
    product, feed = Product(database), Feed(options)
    floors = [Floor(address, apply) for apply in (bare, same_rows)] if options.only == "both" else []
    await product.start(options.lanes)
    ratios: list[list[float]] = []
    print(f"{options.activities} activities of {options.leads} leads, {options.lanes} lanes of {BATCH}; a second:")
    for number in range(options.rounds):
        lanes = feed.take(options.activities // options.rounds)
        gc.collect()
        gc.freeze()  # a consumer does not hold a million records: collecting among them would be the feed's cost
        floored = [await _rate(floor, lanes) for floor in floors]
        cpu = time.process_time()
        reached = await _rate(product, lanes)
        cpu = (time.process_time() - cpu) / sum(map(len, lanes)) * 1_000_000
        ratios.append([reached / rate for rate in floored])
        figures = [f"floor {rate:.0f} (ratio {reached / rate:.2f})" for rate in floored]
        print(f"round {number + 1}: scorer {reached:.0f}", *figures, f"scorer's CPU s per million {cpu:.0f}", sep=", ")
    medians = [f"{statistics.median(column):.2f}" for column in zip(*ratios, strict=True)]
    print(f"median ratios to bare, same_rows: {', '.join(medians) or 'none'}; told: {await database.read(_told)}")
    await database.close()


async def _told(session: Session) -> dict[str, int]:
    rows = await session.execute(sql("SELECT topic, count(*) AS number FROM outbox GROUP BY topic"))
    return {row.topic: row.number for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--activities", type=int, default=300_000)
    parser.add_argument("--leads", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lanes", type=int, default=4)
    parser.add_argument("--only", choices=["both", "product"], default="both")
    options = Options(**vars(parser.parse_args()))
    with dev_server("postgres") as server, fresh_postgresql_database(server) as address:
        asyncio.run(compare(address, options))


if __name__ == "__main__":
    main()
