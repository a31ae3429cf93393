"""HubSpot's webhooks: whose they are is proved by a signature over the exact body; each event gets its own verdict."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from services.scoring.sources.hubspot import is_signed
from shared.db import Database
from shared.events import ActivityRecorded, IdentityMerged
from tests.scoring.arriving import outside_data, rows, told
from tests.scoring.serving import HUBSPOT_SECRET, NOW, PUBLIC_URL, Intake, serving
from tests.support import Databases

pytestmark = pytest.mark.slow

PATH = "/webhooks/hubspot"


@pytest.fixture
def database(databases: Databases) -> Database:
    return databases.open("scoring")


@pytest.fixture
async def intake(database: Database) -> AsyncIterator[Intake]:
    async with serving(database) as intake:
        yield intake


def signed(body: bytes, path: str = PATH, secret: str = HUBSPOT_SECRET, at: datetime = NOW) -> list[tuple[str, str]]:
    """The headers HubSpot would send."""
    timestamp = str(int(at.timestamp() * 1000))
    content = b"POST" + PUBLIC_URL.encode() + path.encode() + body + timestamp.encode()
    signature = base64.b64encode(hmac.new(secret.encode(), content, hashlib.sha256).digest()).decode()
    return [("X-HubSpot-Signature-v3", signature), ("X-HubSpot-Request-Timestamp", timestamp)]


def event(**changes: Any) -> dict[str, Any]:
    plain = {
        "eventId": 1,
        "subscriptionId": 12345,
        "portalId": 62515,
        "occurredAt": int((NOW - timedelta(days=30)).timestamp() * 1000),
        "subscriptionType": "contact.propertyChange",
        "attemptNumber": 0,
        "objectId": 123,
        "propertyName": "country",
        "propertyValue": "IT",
    }
    return {name: value for name, value in {**plain, **changes}.items() if value is not None}


async def post(intake: Intake, *events: Any) -> httpx.Response:
    body = json.dumps(events).encode()
    return await intake.client.post(PATH, content=body, headers=signed(body))


def test_the_published_signature_vector_is_right() -> None:
    vector = next(found for found in outside_data("signature_vectors.json")["hubspot"] if found["version"] == "v3")
    request = (vector["method"] + vector["url"] + vector["body"]).encode()
    then = datetime.fromtimestamp(int(vector["timestamp"]) / 1000, UTC)
    assert is_signed(vector["secret"], vector["signature"], vector["timestamp"], request, now=then)
    assert not is_signed(None, vector["signature"], vector["timestamp"], request, now=then)
    assert not is_signed(vector["secret"], vector["signature"], vector["timestamp"], request + b" ", now=then)


async def test_a_contact_that_changes_is_one_lead(intake: Intake, database: Database) -> None:
    answer = await post(
        intake,
        event(subscriptionType="contact.creation", propertyName=None, propertyValue=None),
        event(propertyName="email", propertyValue="Ana@ACME.example"),
        event(propertyName="numberofemployees", propertyValue="500"),
        event(propertyName="firstname", propertyValue="Ana"),
    )
    assert answer.status_code == 200
    assert [result["status"] for result in answer.json()["results"]] == ["accepted"] * 4
    assert len({result["lead_id"] for result in answer.json()["results"]}) == 1
    events = [found for found in await told(database) if isinstance(found, ActivityRecorded)]
    assert [found.kind for found in events] == ["contact_created"] + ["attributes_changed"] * 3
    assert [found.attributes for found in events] == [{}, {}, {"company_size": 500}, {}]
    kept = {row.name: row.value for row in await rows(database, "SELECT name, value FROM contact_facts")}
    assert kept == {"email": "ana@acme.example", "first_name": "Ana"}


async def test_an_event_sent_again_is_recognised_although_its_attempt_counts_up(intake: Intake) -> None:
    assert (await post(intake, event())).json()["results"][0]["status"] == "accepted"
    assert (await post(intake, event(attemptNumber=1))).json()["results"][0]["status"] == "duplicate"


async def test_one_event_id_of_two_properties_is_two_events(intake: Intake) -> None:
    answer = await post(intake, event(), event(propertyName="state", propertyValue="Lazio"))
    assert [result["status"] for result in answer.json()["results"]] == ["accepted", "accepted"]


async def test_a_merge_in_the_crm_joins_the_leads_of_both_contacts(intake: Intake, database: Database) -> None:
    await post(intake, event(objectId=1), event(objectId=2))
    await post(
        intake,
        event(
            subscriptionType="contact.merge",
            objectId=None,
            propertyName=None,
            propertyValue=None,
            primaryObjectId=1,
            mergedObjectIds=[2],
            newObjectId=3,
        ),
    )
    (merge,) = [found for found in await told(database) if isinstance(found, IdentityMerged)]
    assert merge.evidence == "strong"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"subscriptionType": "deal.creation"}, "not a subscription that Baton takes yet"),
        ({"subscriptionType": None}, "`subscriptionType` is missing"),
        ({"objectId": None}, "`objectId` is missing"),
        ({"propertyName": None}, "`propertyName` is missing"),
        ({"objectId": 0}, "placeholder"),
    ],
)
async def test_what_is_authentic_and_useless_is_taken_and_listed_with_its_reason(
    intake: Intake, changes: dict[str, Any], reason: str
) -> None:
    answer = await post(intake, event(**changes), event())
    assert answer.status_code == 200
    refused, taken = answer.json()["results"]
    assert (refused["status"], taken["status"]) == ("rejected", "accepted")
    listed = (await intake.client.get("/v1/quarantine", headers=intake.bearer)).json()["items"]
    assert [reason in item["reason"] for item in listed] == [True]


@pytest.mark.parametrize("body", [b'{"something:"some"}', b"{}", b"[" * 5000 + b"]" * 5000, b"[1]", b"\xff"])
async def test_an_authentic_body_that_is_no_list_of_events_is_kept_byte_for_byte(
    intake: Intake, database: Database, body: bytes
) -> None:
    answer = await intake.client.post(PATH, content=body, headers=signed(body))
    assert answer.status_code == 200
    assert [result["status"] for result in answer.json()["results"]] == ["rejected"]
    (kept,) = await rows(database, "SELECT body FROM deliveries")
    assert bytes(kept.body) == body


@pytest.mark.parametrize(
    "case",
    [
        "missing",
        "truncated",
        "doubled",
        "forged",
        "old",
        "ahead",
        "other path",
        "other source",
        "other body",
        "no time",
    ],
)
async def test_a_request_that_is_not_hubspots_is_refused_and_leaves_nothing(
    intake: Intake, database: Database, case: str
) -> None:
    body = json.dumps([event()]).encode()
    path, sent = PATH, body
    headers = signed(body)
    match case:
        case "missing":
            headers = headers[1:]
        case "truncated":
            headers = [(headers[0][0], headers[0][1][:-4]), headers[1]]
        case "doubled":
            headers = [*headers, headers[0]]
        case "forged":
            headers = signed(body, secret="another secret")
        case "old" | "ahead":
            headers = signed(body, at=NOW + timedelta(seconds=301 if case == "ahead" else -301))
        case "other path":
            path = PATH + "?portal=1"
        case "other source":
            path = "/webhooks/nobody"
            headers = signed(body, path=path)
        case "other body":
            sent = json.dumps(json.loads(body), indent=1).encode()
        case "no time":
            headers = [headers[0], ("X-HubSpot-Request-Timestamp", "now")]
    answer = await intake.client.post(path, content=sent, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["type"] == "/problems/signature-wrong"
    assert not await rows(database, "SELECT 1 AS x FROM deliveries")


@pytest.mark.parametrize(
    ("query", "as_signed"),
    [
        ("?a=b%3Ac", "?a=b:c"),
        ("?portal=a%2Fb&x=%C3%A9", "?portal=a/b&x=%C3%A9"),
        ("?x=%3f%40%21%24%27%28%29%2A%2C%3B", "?x=?@!$'()*,;"),
        ("?x=%253A%20%26", "?x=%253A%20%26"),
    ],
)
async def test_of_the_query_hubspot_signs_twelve_escapes_decoded_and_the_rest_as_it_came(
    intake: Intake, query: str, as_signed: str
) -> None:
    body = b'[{"url": "b%3Ac"}]'
    right, wrong = signed(body, PATH + as_signed), signed(body, PATH + query)
    assert (await intake.client.post(PATH + query, content=body, headers=right)).status_code == 200
    answered = (await intake.client.post(PATH + query, content=body, headers=wrong)).status_code
    assert answered == (200 if right == wrong else 401)
