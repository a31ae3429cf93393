"""What the scorer is compared with: the fastest honest programs that read the same records, over psycopg alone.

`bare`: decode, insert the ids that are new, add up in one upsert, move the position. `same_rows`: the same, but what it
leaves is what the scorer leaves: the whole activity, the whole row of a score, an event in the outbox for each lead
whose score changed. It judges nothing, reads nothing, locks nothing, and what it writes of a score is made up.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from services.scoring.store.activities import INSERT_ACTIVITIES
from services.scoring.store.scorer import PUT_SCORES
from shared.arrays import ColumnType, packed, send_packed
from shared.bus import Record
from shared.events import ActivityRecorded
from shared.outbox import INSERT as INSERT_EVENTS

BATCH = 1000
POINTS = {"page_viewed": 5, "email_clicked": 5, "webinar_attended": 25, "form_submitted": 20, "demo_requested": 40}
TALLY = '{"counts":{"engagement.site.pricing":{"20522":2},"engagement.content.mail-click":{"20522":1}}}'
DIMENSIONS = '{"fit":6000,"engagement":3500}'
EVENT = b"{" + b" " * 300 + b"}"  # the sizes of a lead.scored
HEADERS = "[" + " " * 330 + "]"

SCHEMA = """
CREATE SCHEMA floor;
CREATE TABLE floor.seen (activity_id text PRIMARY KEY);
CREATE TABLE floor.sums (lead_id text PRIMARY KEY, points bigint NOT NULL);
CREATE TABLE floor.positions (lane bigint PRIMARY KEY, next_offset bigint NOT NULL);
CREATE TABLE floor.activities (LIKE scoring.activities INCLUDING ALL);
CREATE TABLE floor.lead_scores (LIKE scoring.lead_scores INCLUDING ALL);
CREATE TABLE floor.outbox (LIKE scoring.outbox INCLUDING ALL);
INSERT INTO floor.positions SELECT lane, 0 FROM generate_series(0, 63) AS lane;
"""
MOVE = "UPDATE positions SET next_offset = next_offset + %s WHERE lane = %s AND next_offset = %s"

Columns = Mapping[str, ColumnType]
SEEN: Columns = {"activity_id": "text"}
SUMS: Columns = {"lead_id": "text", "points": "bigint"}

Connection = psycopg.AsyncConnection[Any]
Apply = Callable[[Connection, Sequence[Record]], Awaitable[None]]


class Floor:
    """Applies records batch by batch, a connection per lane."""

    def __init__(self, address: str, apply: Apply) -> None:
        self._address = address
        self._apply = apply
        self._first_lane = 0 if apply is bare else 32
        self._positions: dict[int, int] = defaultdict(int)

    async def __call__(self, lanes: Sequence[Sequence[Record]]) -> None:
        await asyncio.gather(*(self._drain(lane, records) for lane, records in enumerate(lanes, self._first_lane)))

    async def _drain(self, lane: int, records: Sequence[Record]) -> None:
        options = "-c search_path=floor -c random_page_cost=1.1"
        async with await psycopg.AsyncConnection.connect(self._address, options=options) as connection:
            send_packed(connection)
            for start in range(0, len(records), BATCH):
                batch = records[start : start + BATCH]
                moved = await connection.execute(MOVE, (len(batch), lane, self._positions[lane]))
                assert moved.rowcount == 1
                await self._apply(connection, batch)
                await connection.commit()
                self._positions[lane] += len(batch)


class Needed(msgspec.Struct):
    """What the bare floor reads of an activity."""

    lead_id: str
    activity_id: str
    kind: str


async def bare(connection: Connection, records: Sequence[Record]) -> None:
    """The two statements."""
    events = {event.activity_id: event for event in (_needed(record.value or b"") for record in records)}
    new = await _insert(connection, "seen", SEEN, [(name,) for name in events], _DO_NOTHING)
    sums: dict[str, int] = defaultdict(int)
    for activity_id in new:
        sums[events[activity_id].lead_id] += POINTS.get(events[activity_id].kind, 0)
    await _insert(connection, "sums", SUMS, sorted(sums.items()), _ADD)


async def same_rows(connection: Connection, records: Sequence[Record]) -> None:
    """The rows that the scorer would leave, without what it takes to know them."""
    events = {event.activity_id: event for event in (_whole(record.value or b"") for record in records)}
    rows = [_activity(event) for event in events.values()]
    new = await _insert(connection, "activities", INSERT_ACTIVITIES.columns, rows, _DO_NOTHING)
    sums: dict[str, int] = defaultdict(int)
    for activity_id in new:
        sums[events[activity_id].lead_id] += POINTS.get(events[activity_id].kind, 0)
    at = events[new[-1]].received_at
    scored = [
        (lead_id, "robots", "robots", "new_business", 1, TALLY, points, DIMENSIONS, "cold", 1, 1, at)
        for lead_id, points in sorted(sums.items())
    ]
    await _insert(connection, "lead_scores", PUT_SCORES.columns, scored, _REPLACE)
    told = [
        (f"scored_{lead_id}_1", "baton.scores.v1", 1, lead_id.encode(), EVENT, HEADERS, at)
        for lead_id, points in sums.items()
        if points
    ]
    await _insert(connection, "outbox", INSERT_EVENTS.columns, told, "RETURNING event_id")


def _activity(event: ActivityRecorded) -> tuple[object, ...]:
    return (
        *(event.activity_id, event.lead_id, event.lead_id, event.kind, event.source, event.source_id),
        *(event.occurred_at, event.received_at, event.agreement_version),
        *(msgspec.json.encode(part).decode() for part in (event.properties, event.attributes)),
        *(event.occurred_at_replaced, event.qualify_any_age),
    )


async def _insert(
    connection: Connection, table: str, columns: Columns, rows: Iterable[tuple[object, ...]], then: str
) -> list[str]:
    """Insert rows by `unnest`; what came back."""
    names = ", ".join(columns)
    arrays = ", ".join(f"%b::{kind}[]" for kind in columns.values())
    statement = f"INSERT INTO {table} ({names}) SELECT * FROM unnest({arrays}) AS rows({names}) {then}"
    given = [packed(kind, values) for kind, values in zip(columns.values(), zip(*rows, strict=True), strict=True)]
    cursor = await connection.execute(sql.SQL(statement), given)
    return [name for (name,) in await cursor.fetchall()] if "RETURNING" in then else []


_DO_NOTHING = "ON CONFLICT (activity_id) DO NOTHING RETURNING activity_id"
_ADD = "ON CONFLICT (lead_id) DO UPDATE SET points = sums.points + excluded.points"
_REPLACE = "ON CONFLICT (lead_id, scorecard) DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name in PUT_SCORES.columns if name not in ("lead_id", "scorecard")
)
_needed = msgspec.json.Decoder(Needed).decode
_whole = msgspec.json.Decoder(ActivityRecorded).decode
