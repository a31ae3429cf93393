"""The formats of senders, without a database: what travels, what stays, what is refused."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scoring.arrivals import Arrival, Opportunity, Unusable, When
from services.scoring.identity import Identity
from services.scoring.sources import hubspot, rest, segment
from services.scoring.sources.facts import MAX_ATTRIBUTES, Excess, properties, traits
from services.scoring.sources.reading import Malformed, parse, snake, when
from tests.scoring.arriving import activity, outside_data

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def of_rest(**item: Any) -> Arrival | Unusable:
    (arrival,) = rest.arrivals(item)
    return arrival


# HubSpot


def test_each_hubspot_sample_gets_its_verdict() -> None:
    verdicts = {
        sample["case"]: [type(item).__name__ for item in hubspot.arrivals("hubspot", sample["body"].encode())]
        for sample in outside_data("hubspot_payloads.json")["payloads"]
    }
    usable = [case for case, kinds in verdicts.items() if kinds == ["Arrival"]]
    assert len(verdicts) == 6
    assert all(case.startswith(("contact.creation", "lifecyclestage")) for case in usable)
    assert len(usable) == 3


# REST


def test_an_item_of_our_own_format_needs_a_kind_and_somebody() -> None:
    found = of_rest(kind="Demo Requested", identities={"email": "ana@acme.example", "crm": {"hubspot": 51}})
    assert isinstance(found, Arrival)
    assert found.claim.strong == (Identity("crm:hubspot", "51"), Identity("email", "ana@acme.example"))
    assert activity(found).kind == "demo_requested"


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"identities": {"email": "a@acme.example"}}, "`kind` is missing"),
        ({"kind": "x"}, "none given"),
        ({"kind": "x", "identities": {"fax": "1"}}, "unknown field `fax`"),
        ({"kind": 5, "identities": {"user_id": "u"}}, "Expected `str`, got `int`"),
        ({"kind": "x", "type": "dance", "identities": {"user_id": "u"}}, "Invalid enum value"),
        ({"type": "touch", "kind": "call", "identities": {"user_id": "u"}}, "`by` is missing"),
        ({"type": "opportunity", "stage": "won", "identities": {"user_id": "u"}}, "`opportunity_id` is missing"),
        ({"kind": "x", "lead_id": "lead", "identities": {"user_id": "u"}}, "lead_id is not a lead's id"),
        ({"id": "x" * 257, "kind": "x", "identities": {"user_id": "u"}}, "longer than 256"),
    ],
)
def test_an_item_that_cannot_be_used_says_why(item: dict[str, Any], reason: str) -> None:
    found = of_rest(**item)
    assert isinstance(found, Unusable)
    assert reason in found.reason


@pytest.mark.parametrize("amount", ["ten", "NaN", "1e400", 1e18, "Infinity"])
def test_money_is_a_finite_number(amount: object) -> None:
    item = {"type": "opportunity", "opportunity_id": 1, "stage": "won", "amount": amount}
    assert isinstance(of_rest(**item, identities={"user_id": "u"}), Unusable)


def test_money_is_exact() -> None:
    item = {"type": "opportunity", "opportunity_id": 1, "stage": "won", "amount": 0.1, "identities": {"user_id": "u"}}
    found = of_rest(**item)
    assert isinstance(found, Arrival)
    assert isinstance(found.what, Opportunity)
    assert str(found.what.amount) == "0.1000"


# Values and times


def test_what_looks_like_somebodys_contact_details_leaves_the_properties() -> None:
    kept = properties(
        {
            "invitee_email": "x",
            "billingAddress": "6th St",
            "phone": "1",
            "note": "write to ana@acme.example",
            "link_url": "https://shop.example/a?promo=ana",
            "email_id": "18vz",
            "name": "Mat",
            "products": [{"sku": "a"}, {"sku": "b"}],
            "has_phone": True,
            "direct_mail": 3,
            "comment": "call +49 (0)89 123-4567 tonight",
            "profile_url": "https://shop.example/u/ana%40acme.example",
            "sent": "2026-11-22T12:00:00+02:00",
            "sum": "1+1234567890",
        },
        Excess(),
    )
    assert kept == {
        "link_url": "https://shop.example/a",
        "email_id": "18vz",
        "name": "Mat",
        "products.0.sku": "a",
        "products.1.sku": "b",
        "has_phone": True,
        "direct_mail": 3,
        "sent": "2026-11-22T12:00:00+02:00",
        "sum": "1+1234567890",
    }


@pytest.mark.parametrize(
    "name",
    [
        "telephone",
        "surname",
        "mobile",
        "WhatsApp",
        "zip",
        "street",
        "postalCode",
        "givenName",
        "Work Email",
        "linkedin",
        "twitterhandle",
        "hs_whatsapp_phone_number",
        "owner.surname",
        "billing_zip",
        "dateOfBirth",
    ],
)
def test_a_contact_detail_under_any_usual_name_stays_here(name: str) -> None:
    assert traits({name: "x"}, Excess())[1] == properties({name: "x"}, Excess()) == {}


def test_a_contact_detail_inside_an_attribute_stays_here() -> None:
    told = {"note": "ana@acme.example", "comment": "or +1 212 555 0123", "company": {"phone": "1", "plan": "big"}}
    assert traits(told, Excess()) == ({}, {"company.plan": "big"})


def test_what_is_beyond_the_limits_is_left_out_and_said() -> None:
    many = of_rest(
        kind="form",
        identities={"user_id": "u"},
        attributes={f"a{number}": "x" for number in range(98)},
        properties={"n" * 101: 1, "long": "x" * 1001, "deep": {"b": {"c": {"d": {"e": {"f": 1}}}}}, "fine": 1},
    )
    assert isinstance(many, Arrival)
    assert len(activity(many).attributes) == MAX_ATTRIBUTES
    assert activity(many).properties == {"long": "x" * 1000, "fine": 1}
    assert many.note.startswith("taken, but 36 values were left out and 1 texts cut")
    few = of_rest(kind="form", identities={"user_id": "u"}, attributes={"a": 1})
    assert isinstance(few, Arrival)
    assert few.note == ""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (("2026-11-22T11:00:00Z", None), (NOW - timedelta(hours=1), False)),
        (("2026-11-22T13:00:00+02:00", None), (NOW - timedelta(hours=1), False)),
        (("2026-11-22T11:00:00", None), (NOW - timedelta(hours=1), False)),
        ((1795338000000, None), (datetime(2026, 11, 22, 9, tzinfo=UTC), False)),
        ((None, None), (NOW, False)),
        (("2015-2-02T00:30:08.276Z", None), (NOW, True)),
        (("soon", None), (NOW, True)),
        (({}, None), (NOW, True)),
        ((float("1e300"), None), (NOW, True)),
        (("2026-11-22T12:00:01Z", None), (NOW, True)),
        (("1970-01-01T00:00:00Z", None), (NOW, True)),
        (("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"), (NOW, True)),
        (("2026-11-22T15:00:00Z", "2026-11-22T15:30:00Z"), (NOW - timedelta(minutes=30), False)),
    ],
)
def test_what_a_sender_says_about_time(said: tuple[object, object], expected: tuple[datetime, bool]) -> None:
    assert when(*said).occurred(NOW) == expected


@given(st.datetimes(timezones=st.just(UTC)), st.none() | st.datetimes(timezones=st.just(UTC)))
def test_nothing_happened_after_it_was_received(claimed: datetime, sent: datetime | None) -> None:
    occurred_at, _ = When(claimed, sent).occurred(NOW)
    assert occurred_at <= NOW


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Order Completed", "order_completed"),
        ("SignedUp", "signed_up"),
        ("userID", "user_id"),
        ("HTTPRequest", "http_request"),
        ("a--b..c", "a_b_c"),
        ("  ", ""),
        ("Café Visit", "café_visit"),
    ],
)
def test_names_are_snake_case(written: str, name: str) -> None:
    assert snake(written) == name
    assert snake(name) == name


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[" * 100_000 + b"]" * 100_000, b'\xef\xbb\xbf{"a":1}x', b'{"a":' + b"9" * 5000]
)
def test_bytes_that_are_no_json_are_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        parse(body)


@pytest.mark.parametrize("value", [b'"\\ud800"', b"NaN", b"1e400", b"-Infinity", b"9" * 5000, b'"\\u0000"'])
def test_one_value_that_no_database_takes_does_not_cost_the_others(value: bytes) -> None:
    body = b'[{"kind": "x", "id": "1", "identities": {"user_id": "u"}, "properties": {"v": ' + value + b"}}, 5]"
    first, second = rest.arrivals(parse(body))
    assert isinstance(first, Arrival)
    kept = activity(first).properties["v"]
    assert kept is None or kept in ("\ufffd", "")
    assert isinstance(second, Unusable)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), json_values, max_size=6))
def test_whatever_is_told_only_finite_clean_scalars_travel(told: dict[str, Any]) -> None:
    contact, attributes = traits(told, Excess())
    for value in (*contact.values(), *attributes.values(), *properties(told, Excess()).values()):
        assert not isinstance(value, float) or math.isfinite(value)
        assert not isinstance(value, str) or b"\x00" not in value.encode()
        assert not isinstance(value, int) or abs(value) < 2**63


@given(json_values)
def test_whatever_json_a_sender_sends_every_item_gets_a_verdict(value: Any) -> None:
    sent = parse(json.dumps(value).encode())
    assert len(rest.arrivals([sent])) == 1
    assert len(segment.arrivals("batch", {"batch": [sent, sent]})) == 2
    assert all(isinstance(item, Unusable) for item in hubspot.arrivals("hubspot", json.dumps(value).encode()))
