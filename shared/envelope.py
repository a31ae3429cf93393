"""How an event travels: CloudEvents 1.0 in binary mode, attributes as headers, the event itself as the JSON value.

Reading is strict: what is missing or malformed is an `EventUnreadable`, never an invented value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Generic, TypeVar

import msgspec

from shared.bus import Headers, Message, Record
from shared.events import EVENTS, Event

SPEC_VERSION = "1.0"
CONTENT_TYPE = "application/json"
Attributes = tuple[tuple[str, str], ...]
TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class EventUnreadable(ValueError):
    """A record that is no event of ours; the message says which attribute is wrong and what was expected."""


E_co = TypeVar("E_co", bound=Event, covariant=True)


class Received(msgspec.Struct, Generic[E_co], frozen=True):
    """An event as a handler gets it: with its CloudEvents attributes, and the record it came in."""

    event: E_co
    id: str
    source: str
    time: datetime
    traceparent: str
    record: Record


_encoder = msgspec.json.Encoder()
_decoders = {name: msgspec.json.Decoder(event) for name, event in EVENTS.items()}


def encode(event: Event, *, event_id: str, source: str, time: datetime, traceparent: str) -> Message:
    """The message that carries the event. `time`: when it was emitted; `source`: e.g. /baton/scoring."""
    attributes = attributes_of(event, event_id=event_id, source=source, time=time, traceparent=traceparent)
    headers = tuple([(name, value.encode()) for name, value in attributes])
    return Message(topic=event.topic, key=event.key.encode(), value=encode_value(event), headers=headers)


def attributes_of(event: Event, *, event_id: str, source: str, time: datetime, traceparent: str) -> Attributes:
    """The event's CloudEvents attributes, and the other headers it travels with."""
    return (
        ("ce_specversion", SPEC_VERSION),
        ("ce_id", event_id),
        ("ce_type", event.type),
        ("ce_source", source),
        ("ce_time", _stamp(time)),
        ("content-type", CONTENT_TYPE),
        ("traceparent", traceparent),
    )


def encode_value(event: Event) -> bytes:
    """The event itself, as JSON."""
    return _encoder.encode(event)


def decode(record: Record) -> Received[Event]:
    """The event in a record. Raises `EventUnreadable`."""
    if record.unreadable is not None:
        raise EventUnreadable(record.unreadable)
    attributes = _attributes(record.headers)
    _expect(attributes, "ce_specversion", SPEC_VERSION)
    _expect(attributes, "content-type", CONTENT_TYPE)
    name = _required(attributes, "ce_type")
    decoder = _decoders.get(name)
    if decoder is None or EVENTS[name].topic != record.topic:
        allowed = ", ".join(known for known, event in EVENTS.items() if event.topic == record.topic)
        raise EventUnreadable(f"ce_type {name!r} does not belong on {record.topic}; allowed: {allowed or 'none'}")
    try:
        event = decoder.decode(record.value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EventUnreadable(f"{name}: {error}") from error
    if not event.key or record.key != event.key.encode():
        raise EventUnreadable(f"{name}: the record's key is empty, or not the event's")
    return Received(
        event=event,
        id=_required(attributes, "ce_id"),
        source=_required(attributes, "ce_source"),
        time=_time(attributes),
        traceparent=_traceparent(attributes),
        record=record,
    )


@lru_cache(maxsize=16)
def _stamp(time: datetime) -> str:
    """All events of a transaction were emitted at one instant."""
    return time.astimezone(UTC).isoformat()


def _attributes(headers: Headers) -> dict[str, str]:
    try:
        attributes = {name: value.decode() for name, value in headers}
    except UnicodeDecodeError as error:
        name = next(name for name, value in headers if value == error.object)
        raise EventUnreadable(f"header {name} is not UTF-8") from error
    if len(attributes) < len(headers):
        twice = next(name for name, _ in headers if [other for other, _ in headers].count(name) > 1)
        raise EventUnreadable(f"header {twice} stands twice")
    return attributes


def _required(attributes: Mapping[str, str], name: str) -> str:
    value = attributes.get(name)
    if not value:
        raise EventUnreadable(f"required attribute {name} is missing")
    return value


def _expect(attributes: Mapping[str, str], name: str, expected: str) -> None:
    value = _required(attributes, name)
    if value != expected:
        raise EventUnreadable(f"{name} is {value!r}, expected {expected!r}")


def _time(attributes: Mapping[str, str]) -> datetime:
    value = _required(attributes, "ce_time")
    try:
        time = datetime.fromisoformat(value)
        in_utc = time if time.tzinfo is UTC else time.astimezone(UTC)
    except (ValueError, OverflowError) as error:  # year 1 or 9999, out of range once it is UTC
        raise EventUnreadable(f"ce_time {value!r} is not an RFC 3339 time") from error
    if time.tzinfo is None:
        raise EventUnreadable(f"ce_time {value!r} has no zone")
    return in_utc


def _traceparent(attributes: Mapping[str, str]) -> str:
    value = _required(attributes, "traceparent")
    if not TRACEPARENT.fullmatch(value):
        raise EventUnreadable(f"traceparent {value!r} is not a W3C trace context")
    return value
