"""Events leave through the outbox (law 3): written in the transaction that causes them, published by a relay.

`emit` buffers; the buffer goes in as ONE statement, last in the transaction, so that the rows of a key are numbered
under that key's lock. The relay finds rows by "unpublished", never by "id > last seen": a sequence hands out numbers
before the commit. It publishes in id order and marks afterwards; a crash in between publishes twice, and readers know
an event by its id.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from shared.bus import Headers, Message, Record
from shared.clock import uuid7
from shared.db import Session
from shared.envelope import Received, attributes_of, encode_value
from shared.events import Event
from shared.sql import sql
from shared.telemetry import traceparent
from shared.topics import MAX_EVENT_BYTES, MAX_RECORD_BYTES, dead_letter_topic

MAX_KEY_BYTES = 1024  # of a dead letter that has to be cut; our own keys have at most 64
SHARDS = 16  # keys are spread over these; a relay holds whole shards, so that one relay at a time publishes a key
Row = tuple[str, str, int, bytes, bytes, str, datetime]
OUTBOX = "outbox"  # the signal that wakes the relay of this process

INSERT = sql(
    """
    INSERT INTO outbox (event_id, topic, shard, key, value, headers, created_at)
    SELECT event_id, topic, shard, key, value, headers, created_at FROM {rows} WHERE true ORDER BY row_number
    """,
    event_id="text",
    topic="text",
    shard="bigint",
    key="bytea",
    value="bytea",
    headers="text",
    created_at="timestamptz",
)


class EventTooLarge(ValueError):
    """The broker would refuse this event; say less in it."""


@dataclass(frozen=True, slots=True)
class Death:
    """Why a record is dead-lettered: a stable code to filter by, the cause in words, how often it was tried."""

    code: str
    cause: str
    attempts: int


def emit(session: Session, event: Event, *, cause: Received[Any] | None = None, event_id: str | None = None) -> None:
    """Publish the event if, and only if, this transaction commits.

    `cause`: the event this one follows from, whose trace it carries on. `event_id`: where there is a natural one, so
    that a repetition is recognised. The transaction has asked `session.now()` before. Raises `EventTooLarge`.
    """
    value = encode_value(event)
    if len(value) > MAX_EVENT_BYTES:
        raise EventTooLarge(f"{event.type}: {len(value)} bytes, allowed {MAX_EVENT_BYTES}")
    known_as = event_id or uuid7()
    attributes = attributes_of(
        event,
        event_id=known_as,
        source=f"/baton/{session.service}",
        time=session.instant,
        traceparent=cause.traceparent if cause else traceparent(),
    )
    _put(session, _row(known_as, event.topic, event.key.encode(), value, _json(attributes), session.instant))


def emit_dead_letter(session: Session, record: Record, death: Death) -> None:
    """Put a record, untouched, on the service's dead-letter topic, with its cause and origin as headers.

    The `kafka_dlt-*` and `x-original-topic` names are those that common Kafka tools know. A record so large that the
    broker would not take it with these headers goes without its value, and says so: its origin names where it still is.
    """
    cause = death.cause.encode()[:2000]
    origin: Headers = (
        ("x-original-topic", record.topic.encode()),
        ("kafka_dlt-original-topic", record.topic.encode()),
        ("kafka_dlt-original-partition", str(record.partition).encode()),
        ("kafka_dlt-original-offset", str(record.offset).encode()),
        ("kafka_dlt-exception-message", cause),
        ("baton-reason-code", death.code.encode()),
        ("baton-attempts", str(death.attempts).encode()),
        ("baton-group", f"baton.{session.service}".encode()),
        ("baton-failed-at", session.instant.isoformat().encode()),
        ("baton-key-missing", b"1" if record.key is None else b"0"),
        ("baton-value-missing", b"1" if record.value is None else b"0"),
    )
    headers = (*record.headers, *origin)
    message = Message(dead_letter_topic(session.service), record.key or b"", record.value or b"", headers)
    if size(message) > MAX_RECORD_BYTES:
        message = Message(message.topic, message.key[:MAX_KEY_BYTES], b"", (*origin, ("baton-value-dropped", b"1")))
    emit_as_is(session, message)


def emit_as_is(session: Session, message: Message) -> None:
    """Publish a record that exists already, key, value and headers as they are, if this transaction commits."""
    event_id = next((value.decode(errors="replace") for name, value in message.headers if name == "ce_id"), "")
    event_id = event_id.replace("\0", "")  # a stranger's; PostgreSQL keeps no NUL in a text
    packed = pack_headers(message.headers)
    _put(session, _row(event_id, message.topic, message.key, message.value, packed, session.instant))


def size(message: Message) -> int:
    """Bytes of a message on the wire, roughly: key, value and headers."""
    return len(message.key) + len(message.value) + sum(len(name) + len(value) + 8 for name, value in message.headers)


def shard_of(key: bytes) -> int:
    """The shard of a key; stable for ever, as rows of older releases may wait."""
    return zlib.crc32(key) % SHARDS


def pack_headers(headers: Headers) -> str:
    """Headers as JSON text; values that are no UTF-8 as base64 in a list."""
    return _json([(name, _pack(value)) for name, value in headers])


def unpack_headers(text: str) -> Headers:
    """The reverse of `pack_headers`."""
    return tuple([(name, _unpack(value)) for name, value in _headers.decode(text)])


def _pack(value: bytes) -> str | list[str]:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return [base64.b64encode(value).decode()]


def _unpack(value: str | list[str]) -> bytes:
    return value.encode() if isinstance(value, str) else base64.b64decode(value[0])


_headers = msgspec.json.Decoder(list[tuple[str, str | list[str]]])


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _row(event_id: str, topic: str, key: bytes, value: bytes, headers: str, created_at: datetime) -> Row:
    return event_id, topic, shard_of(key), key, value, headers, created_at


def _put(session: Session, row: Row) -> None:
    buffered: list[Row] = session.buffer(OUTBOX)
    buffered.append(row)
    if len(buffered) == 1:
        session.before_commit(lambda: _flush(session, buffered))
        session.wake(OUTBOX)


async def _flush(session: Session, rows: Sequence[Row]) -> None:
    await session.execute(INSERT, rows)
