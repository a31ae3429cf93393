"""Each event type has a golden example, which today's code reads and would write again."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from shared.envelope import decode, encode
from shared.events import EVENTS
from shared.topics import TOPICS
from tests.contracts.golden import GOLDEN, golden


@pytest.mark.parametrize("name", EVENTS)
def test_the_golden_example_of_a_type_is_read(name: str) -> None:
    example = golden(name)
    received = decode(example.record())
    assert type(received.event) is EVENTS[name]
    assert received.event.key == example.key
    assert (received.id, received.source) == (example.headers["ce_id"], example.headers["ce_source"])
    assert received.traceparent == example.headers["traceparent"]


@pytest.mark.parametrize("name", EVENTS)
def test_what_is_read_is_written_again_as_it_was(name: str) -> None:
    example = golden(name)
    received = decode(example.record())
    message = encode(
        received.event,
        event_id=received.id,
        source=received.source,
        time=received.time,
        traceparent=received.traceparent,
    )
    assert (message.topic, message.key) == (example.topic, example.key.encode())
    assert message.headers == example.raw_headers()
    written = msgspec.json.decode(message.value, type=dict[str, object])
    assert {field: written[field] for field in example.value} == example.value


def test_every_field_of_every_type_is_shown_by_an_example() -> None:
    assert {name: set(golden(name).value) for name in EVENTS} == {
        name: set(event.__struct_fields__) for name, event in EVENTS.items()
    }


def test_no_example_is_of_a_type_that_does_not_exist() -> None:
    assert {file.name.removesuffix(".v1.json") for file in GOLDEN.iterdir()} == set(EVENTS)


def test_every_type_stands_on_the_topic_that_the_table_names() -> None:
    def from_table() -> Iterator[tuple[str, str]]:
        for topic in TOPICS:
            yield from ((name, topic.name) for name in topic.types)

    assert sorted(from_table()) == sorted((name, event.topic) for name, event in EVENTS.items())
