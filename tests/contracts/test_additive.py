"""A version of an event may gain optional fields, and change in no other way."""

from __future__ import annotations

from typing import Literal

import msgspec
import pytest

from shared.events import EVENTS, Event
from tests.contracts.additive import SCHEMAS, breaking_changes, kept_schema, schema_of


@pytest.mark.parametrize("name", EVENTS)
def test_no_event_changed_but_by_addition(name: str) -> None:
    assert list(breaking_changes(kept_schema(name), schema_of(EVENTS[name]))) == []


@pytest.mark.parametrize("name", EVENTS)
def test_what_was_added_is_kept_from_now_on(name: str) -> None:
    assert kept_schema(name) == schema_of(EVENTS[name]), "run `python -m tests.contracts.additive`"


def test_no_event_type_is_taken_away() -> None:
    assert {file.name.removesuffix(".v1.json") for file in SCHEMAS.iterdir()} == set(EVENTS)


class Line(msgspec.Struct, frozen=True):
    points: float


class Sold(Event, frozen=True, kw_only=True):
    lead_id: str
    units: int
    color: Literal["red", "blue"] = "red"
    lines: tuple[Line, ...] = ()


def changes(event: type[Event]) -> list[str]:
    """What is said of a changed `Sold`."""
    schema = {"Sold" if name == event.__name__ else name: fields for name, fields in schema_of(event).items()}
    return list(breaking_changes(schema_of(Sold), schema))


def test_an_optional_field_may_be_added() -> None:
    class Added(Sold, frozen=True, kw_only=True):
        price: float | None = None

    assert changes(Added) == []


def test_a_removed_field_is_refused() -> None:
    class Removed(Event, frozen=True, kw_only=True):
        lead_id: str
        color: Literal["red", "blue"] = "red"
        lines: tuple[Line, ...] = ()

    assert changes(Removed) == ["Sold.units was removed", "Sold.units may be left out now"]


def test_a_changed_type_is_refused() -> None:
    class Changed(Event, frozen=True, kw_only=True):
        lead_id: str
        units: str
        color: Literal["red", "blue"] = "red"
        lines: tuple[Line, ...] = ()

    assert changes(Changed) == ['Sold.units was {"type": "integer"}, is {"type": "string"}']


def test_a_new_required_field_is_refused() -> None:
    class Required(Sold, frozen=True, kw_only=True):
        price: float

    assert changes(Required) == ["Sold.price must be given now"]


def test_a_changed_default_is_refused() -> None:
    class Defaulted(Event, frozen=True, kw_only=True):
        lead_id: str
        units: int
        color: Literal["red", "blue"] = "blue"
        lines: tuple[Line, ...] = ()

    assert [change.partition(" ")[0] for change in changes(Defaulted)] == ["Sold.color"]


def test_a_change_in_a_part_of_an_event_is_refused() -> None:
    was = schema_of(Sold)
    now = {**was, "Line": type(was["Line"])({}, [])}
    assert list(breaking_changes(was, now)) == ["Line.points was removed", "Line.points may be left out now"]
