"""Reading is strict: what is missing or malformed is `EventUnreadable`: no invented value, no other error."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.bus import Record
from shared.envelope import EventUnreadable, Received, decode
from shared.events import EVENTS, Event
from shared.topics import TOPICS
from tests.contracts.golden import Golden, golden

REQUIRED = ("ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "content-type", "traceparent")
QUALIFIED = golden("mql.qualified")


def unreadable(record: Record, reason: str) -> None:
    with pytest.raises(EventUnreadable, match=reason):
        decode(record)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_attribute_is_never_invented(name: str) -> None:
    headers = tuple(header for header in QUALIFIED.raw_headers() if header[0] != name)
    unreadable(QUALIFIED.record(headers=headers), f"{name} is missing")


@pytest.mark.parametrize("name", REQUIRED)
def test_an_empty_attribute_is_a_missing_one(name: str) -> None:
    unreadable(QUALIFIED.record(headers=QUALIFIED.raw_headers({name: b""})), f"{name} is missing")


@pytest.mark.parametrize("name", REQUIRED)
def test_an_attribute_that_stands_twice_is_refused(name: str) -> None:
    again = next(header for header in QUALIFIED.raw_headers() if header[0] == name)
    unreadable(QUALIFIED.record(headers=(*QUALIFIED.raw_headers(), again)), f"header {name} stands twice")


@pytest.mark.parametrize("name", REQUIRED)
def test_an_attribute_that_is_not_utf_8_is_refused(name: str) -> None:
    headers = QUALIFIED.raw_headers({name: b"\xff\xfe"})
    unreadable(QUALIFIED.record(headers=headers), f"header {name} is not UTF-8")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ce_specversion", "0.3"),
        ("content-type", "text/plain"),
        ("ce_type", "lead.hired"),
        ("ce_time", "yesterday"),
        ("ce_time", "2026-11-20T15:00:00"),
        ("ce_time", "0001-01-01T00:00:00+23:59"),
        ("ce_time", "9999-12-31T23:59:59-23:59"),
        ("traceparent", "00-1-2-3"),
        ("traceparent", "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"),
    ],
)
def test_a_malformed_attribute_is_refused(name: str, value: str) -> None:
    unreadable(QUALIFIED.record(headers=QUALIFIED.raw_headers({name: value.encode()})), name)


def test_headers_that_are_not_ours_are_ignored() -> None:
    headers = (*QUALIFIED.raw_headers(), ("tracestate", b"vendor=1"))
    assert decode(QUALIFIED.record(headers=headers)).id == QUALIFIED.headers["ce_id"]


@pytest.mark.parametrize("topic", [topic.name for topic in TOPICS if topic.name != QUALIFIED.topic] + ["other"])
def test_an_event_on_a_foreign_topic_is_refused(topic: str) -> None:
    unreadable(QUALIFIED.record(topic=topic), "does not belong on")


@pytest.mark.parametrize("key", [b"", b"lead_other", b"\xff"])
def test_a_key_that_is_not_the_events_is_refused(key: bytes) -> None:
    unreadable(QUALIFIED.record(key=key), "key is empty, or not the event's")


def test_a_record_without_key_or_value_is_refused() -> None:
    unreadable(replace(QUALIFIED.record(), key=None), "key is empty, or not the event's")
    unreadable(replace(QUALIFIED.record(), value=None), "mql.qualified")


def test_what_the_client_could_not_read_says_why() -> None:
    unreadable(replace(QUALIFIED.record(), unreadable="corrupt batch"), "corrupt batch")


@pytest.mark.parametrize("name", EVENTS)
def test_no_required_field_is_invented(name: str) -> None:
    known = golden(name)
    for field in (field.name for field in msgspec.structs.fields(EVENTS[name]) if field.required):
        value = {key: value for key, value in known.value.items() if key != field}
        unreadable(known.record(value=msgspec.json.encode(value)), f"required field `{field}`")


@pytest.mark.parametrize("name", EVENTS)
def test_a_field_that_is_not_known_yet_is_ignored(name: str) -> None:
    known = golden(name)
    grown = msgspec.json.encode({**known.value, "added_later": [1, {"deep": None}]})
    assert decode(known.record(value=grown)).event == decode(known.record()).event


@pytest.mark.parametrize(
    ("field", "value"),
    [("score", "120"), ("cycle", 1.5), ("cycle", True), ("raised_hand", 1), ("qualified_at", "2026-11-20T15:04:05")],
)
def test_a_value_of_another_type_is_refused(field: str, value: object) -> None:
    unreadable(QUALIFIED.record(value=msgspec.json.encode({**QUALIFIED.value, field: value})), rf"\$\.{field}")


# Whatever lies in the log

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
examples = st.sampled_from([golden(name) for name in EVENTS])


def read(record: Record) -> Received[Event] | None:
    """What a consumer makes of it; any error but `EventUnreadable` fails the test."""
    with suppress(EventUnreadable):
        return decode(record)
    return None


@given(examples, st.binary(max_size=60))
@example(QUALIFIED, b"\xff")
@example(QUALIFIED, b"[" * 100_000)
@example(QUALIFIED, b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")
@example(QUALIFIED, b'{"lead_id": "\\ud800"}')
def test_no_bytes_are_more_than_unreadable(known: Golden, value: bytes) -> None:
    assert read(known.record(value=value)) is None


@given(st.data(), examples, json_values)
def test_no_json_in_place_of_a_field_is_more_than_unreadable(data: st.DataObject, known: Golden, value: object) -> None:
    field = data.draw(st.sampled_from(sorted(known.value)))
    received = read(known.record(value=msgspec.json.encode({**known.value, field: value})))
    assert received is None or received.event.key == known.key


@given(examples, st.lists(st.tuples(st.sampled_from([*REQUIRED, "x"]), st.binary(max_size=40)), max_size=9))
def test_no_headers_are_more_than_unreadable(known: Golden, headers: list[tuple[str, bytes]]) -> None:
    read(known.record(headers=tuple(headers)))


@given(examples, st.sampled_from(REQUIRED), st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_no_attribute_is_more_than_unreadable(known: Golden, name: str, value: bytes) -> None:
    read(known.record(headers=known.raw_headers({name: value})))
