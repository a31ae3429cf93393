"""How an event travels: CloudEvents 1.0 in binary mode, attributes as headers, the event itself as the JSON value.

Reading is strict: what is missing or malformed is an `EventUnreadable`, never an invented value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

import msgspec

from shared.bus import Headers, Message, Record
from shared.events import EVENTS, Event

SPEC_VERSION = b"1.0"
CONTENT_TYPE = b"application/json"
TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class EventUnreadable(ValueError):
    """A record that is no event of ours; the message says which attribute is wrong and what was expected."""


E_co = TypeVar("E_co", bound=Event, covariant=True)


@dataclass(frozen=True, slots=True)
class Received(Generic[E_co]):
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
    headers: Headers = (
        ("ce_specversion", SPEC_VERSION),
        ("ce_id", event_id.encode()),
        ("ce_type", event.type.encode()),
        ("ce_source", source.encode()),
        ("ce_time", time.astimezone(UTC).isoformat().encode()),
        ("content-type", CONTENT_TYPE),
        ("traceparent", traceparent.encode()),
    )
    return Message(topic=event.topic, key=event.key.encode(), value=_encoder.encode(event), headers=headers)


def decode(record: Record) -> Received[Event]:
    """The event in a record. Raises `EventUnreadable`."""
    if record.unreadable is not None:
        raise EventUnreadable(record.unreadable)
    attributes = _attributes(record.headers)
    _expect(attributes, "ce_specversion", SPEC_VERSION.decode())
    _expect(attributes, "content-type", CONTENT_TYPE.decode())
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


def _attributes(headers: Headers) -> dict[str, str]:
    attributes: dict[str, str] = {}
    for name, value in headers:
        if name in attributes:
            raise EventUnreadable(f"header {name} stands twice")
        try:
            attributes[name] = value.decode()
        except UnicodeDecodeError as error:
            raise EventUnreadable(f"header {name} is not UTF-8") from error
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
        in_utc = time.astimezone(UTC)
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
