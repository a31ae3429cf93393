"""Segment's messages, without a database: what travels, what stays, what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.scoring.arrivals import Arrival, Unusable
from services.scoring.identity import Identity
from services.scoring.sources import segment
from services.scoring.sources.reading import Malformed, parse
from tests.scoring.arriving import activity, call_of, outside_data

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def of_segment(call: str, **message: Any) -> Arrival:
    (arrival,) = segment.arrivals(call, message)
    assert isinstance(arrival, Arrival), arrival.reason
    return arrival


def test_every_payload_of_the_segment_spec_has_a_verdict() -> None:
    refused = {}
    for entry in outside_data("segment_spec_payloads.json")["payloads"]:
        payload = entry["payload"]
        for arrival in segment.arrivals(call_of(payload), payload):
            if isinstance(arrival, Unusable):
                refused[entry["source_path"], entry["index"]] = arrival.reason
    allowed = ("no usable identity: none given", "`event` names what happened", "not a call that Baton takes yet")
    assert set(refused.values()) <= set(allowed), refused
    assert len(refused) == 5, refused


def test_samples_that_are_no_json_are_malformed_and_not_an_error_of_ours() -> None:
    for entry in outside_data("segment_spec_nonstrict_samples.json")["raw"]:
        with pytest.raises(Malformed):
            parse(entry["raw"].encode())


def test_a_track_call_is_named_after_its_event() -> None:
    arrival = of_segment(
        "track", userId="u1", event="Order Completed", properties={"revenue": 39.95, "plan": {"seats": 5}}
    )
    assert activity(arrival).kind == "order_completed"
    assert activity(arrival).properties == {"revenue": 39.95, "plan.seats": 5}
    assert arrival.claim.strong == (Identity("user_id", "u1"),)


def test_a_page_has_its_path_and_campaign_and_no_query() -> None:
    url = "https://ana:secret@acme.example/pricing/eu?email=ana@acme.example&utm_campaign=spring&utm_source=news#top"
    what = activity(of_segment("page", anonymousId="a", properties={"url": url, "search": "?email=ana@acme.example"}))
    assert what.kind == "page_viewed"
    assert what.properties == {
        "url": "https://acme.example/pricing/eu",
        "path": "/pricing/eu",
        "utm_campaign": "spring",
        "utm_source": "news",
    }


def test_traits_are_sorted_into_contact_details_and_attributes() -> None:
    told = {
        "email": "Ana@ACME.example",
        "firstName": "Ana",
        "company": {"name": "Acme", "industry": "robots", "employee_count": "1,200"},
        "address": {"street": "6th St", "city": "Rome", "country": "IT"},
        "title": "Plant Manager",
        "manager": "write to boss@acme.example",
    }
    arrival = of_segment("identify", userId="u1", traits=told)
    assert activity(arrival).kind == "attributes_changed"
    assert activity(arrival).attributes == {
        "industry": "robots",
        "company_size": 1200,
        "country": "IT",
        "title": "Plant Manager",
    }
    assert arrival.contact == {
        "email": "ana@acme.example",
        "first_name": "Ana",
        "company": "Acme",
        "address": "6th St",
        "city": "Rome",
    }
    assert arrival.claim.strong == (Identity("user_id", "u1"), Identity("email", "ana@acme.example"))


def test_a_group_speaks_of_the_company() -> None:
    arrival = of_segment("group", userId="u1", groupId="g", traits={"name": "Initech", "employees": 329, "plan": "big"})
    assert arrival.contact == {"company": "Initech"}
    assert activity(arrival).attributes == {"company_size": 329, "company.plan": "big"}


def test_an_alias_is_explicit_and_its_previous_id_may_have_been_anonymous() -> None:
    claim = of_segment("alias", previousId="old", userId="new").claim
    assert claim.explicit
    assert claim.strong == (Identity("user_id", "new"), Identity("user_id", "old"))
    assert claim.if_known == (Identity("anonymous_id", "old"),)


def test_the_spellings_of_segments_own_examples_are_read() -> None:
    odd = {"action": "track", "user_id": "u1", "event": "Email Opened"}
    (arrival,) = segment.arrivals("batch", {"batch": [odd]})
    assert isinstance(arrival, Arrival)
    (aliased,) = segment.arrivals("alias", {"Previous ID": "a", "User ID": "b"})
    assert isinstance(aliased, Arrival)


def test_a_batch_lends_its_sent_at_and_context_to_its_messages() -> None:
    message = {"type": "track", "userId": "u1", "event": "X", "timestamp": "2026-11-22T10:00:00Z"}
    (arrival,) = segment.arrivals("batch", {"sentAt": "2026-11-22T11:00:00Z", "batch": [message]})
    assert isinstance(arrival, Arrival)
    assert arrival.when.occurred(NOW) == (NOW - timedelta(hours=1), False)


def test_a_repeated_message_with_another_sent_at_is_the_same_content() -> None:
    first, second = (of_segment("track", userId="u", event="X", sentAt=sent) for sent in ("2026-01-01", "2026-01-02"))
    assert first.source_id == second.source_id


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"type": "track", "userId": "u1"}, "`event`"),
        ({"type": "dance", "userId": "u1"}, "`type`"),
        ({"type": "delete", "userId": "u1"}, "yet"),
        ({"type": "page"}, "none given"),
        ({"type": "track", "event": "X", "userId": "undefined", "anonymousId": "null"}, "placeholder"),
        ({"type": "track", "event": "X", "userId": "u1", "messageId": "a\x00b"}, "unprintable"),
        ({"type": "track", "event": "X", "userId": "u1", "properties": {"x": "y" * 40_000}}, "bytes"),
        ("text", "object"),
    ],
)
def test_a_message_that_cannot_be_used_says_why_and_harms_no_other(message: Any, reason: str) -> None:
    good = {"type": "track", "event": "X", "userId": "u1"}
    refused, taken = segment.arrivals("batch", {"batch": [message, good]})
    assert isinstance(refused, Unusable)
    assert reason in refused.reason
    assert isinstance(taken, Arrival)
