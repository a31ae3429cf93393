"""The door over HTTP: who may come in, how much at once, and what each is answered."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from services.scoring.sources.rest import MAX_BODY_BYTES
from services.scoring.sources.segment import MAX_BATCH_BYTES
from shared.db import Database, Limits
from tests.scoring.arriving import call_of, outside_data, page, rows
from tests.scoring.serving import WRITE_KEY, Intake, serving
from tests.support import Databases

pytestmark = pytest.mark.slow

BASIC = httpx.BasicAuth(WRITE_KEY, "")
TRACK = {"event": "Signed Up", "userId": "u1"}


@pytest.fixture
def database(databases: Databases) -> Database:
    return databases.open("scoring")


@pytest.fixture
async def intake(database: Database) -> AsyncIterator[Intake]:
    async with serving(database) as intake:
        yield intake


async def test_one_item_or_many_get_a_verdict_each_in_order(intake: Intake) -> None:
    one = await intake.client.post("/v1/activities", json={"id": "1", **page(user_id="u1")}, headers=intake.bearer)
    many = await intake.client.post(
        "/v1/activities", json=[{"id": "1", **page(user_id="u1")}, page(), page(user_id="u2")], headers=intake.bearer
    )
    assert one.status_code == many.status_code == 200
    (first,) = one.json()["results"]
    assert (first["status"], first["id"]) == ("accepted", "1")
    assert [result["status"] for result in many.json()["results"]] == ["duplicate", "rejected", "accepted"]
    assert many.json()["results"][0]["lead_id"] == first["lead_id"]
    assert many.json()["results"][1]["reason"] == "no usable identity: none given"


@pytest.mark.parametrize("call", ["track", "identify", "page", "screen", "group", "batch"])
async def test_segments_calls_are_answered_success_with_the_items_that_were_not_usable(
    intake: Intake, call: str
) -> None:
    message = {"event": "X", "userId": "u1", "traits": {}, "groupId": "g", "type": "track"}
    body = {"batch": [message, {"type": "track", "userId": "u1"}]} if call == "batch" else message
    answer = await intake.client.post(f"/v1/{call}", json=body, auth=BASIC)
    assert answer.status_code == 200
    assert answer.json()["success"] is True
    assert [rejected["index"] for rejected in answer.json()["rejected"]] == ([1] if call == "batch" else [])


async def test_a_browser_may_name_its_write_key_in_the_body(intake: Intake) -> None:
    body = json.dumps({**TRACK, "writeKey": WRITE_KEY})
    answer = await intake.client.post("/v1/track", content=body, headers={"Content-Type": "text/plain"})
    assert answer.status_code == 200


async def test_every_payload_of_the_segment_spec_is_answered(intake: Intake) -> None:
    for entry in outside_data("segment_spec_payloads.json")["payloads"]:
        call = call_of(entry["payload"])
        path = f"/v1/{call}" if call != "delete" else "/v1/batch"
        body = entry["payload"] if call != "delete" else {"batch": [entry["payload"]]}
        assert (await intake.client.post(path, json=body, auth=BASIC)).status_code == 200


@pytest.mark.parametrize(
    "request_of",
    [
        {"json": TRACK},
        {"json": TRACK, "auth": httpx.BasicAuth("wrong", "")},
        {"json": {**TRACK, "writeKey": "wrong"}},
        {"json": {**TRACK, "writeKey": WRITE_KEY}, "auth": httpx.BasicAuth("wrong", "")},
        {"json": TRACK, "headers": {"Authorization": "Basic %%%"}},
        {"json": {**TRACK, "writeKey": {"a": 1}}},
    ],
)
async def test_without_the_write_key_nobody_comes_in(intake: Intake, database: Database, request_of: Any) -> None:
    answer = await intake.client.post("/v1/track", **request_of)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic")
    assert not await rows(database, "SELECT 1 AS x FROM deliveries")


async def test_activities_need_an_api_key(intake: Intake) -> None:
    assert (await intake.client.post("/v1/activities", json=page(user_id="u"))).status_code == 401


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"5", {}, 400),
        (b"[" * 100_000, {}, 400),
        (json.dumps([page(user_id="u")] * 1001).encode(), {}, 400),
        (b"{}", {"Content-Type": "application/xml"}, 415),
        (b"{}", {"Content-Encoding": "br"}, 415),
        (b"{}", {"Content-Encoding": "gzip"}, 400),
        (gzip.compress(b"{}")[:-6], {"Content-Encoding": "gzip"}, 400),
        (gzip.compress(b" " * 50_000_000), {"Content-Encoding": "gzip"}, 413),
        (b" " * (MAX_BODY_BYTES + 1), {}, 413),
    ],
)
async def test_a_body_nobody_can_use_is_a_problem_and_leaves_nothing(
    intake: Intake, database: Database, body: bytes, headers: dict[str, str], status: int
) -> None:
    sent = {"Content-Type": "application/json", **headers, **intake.bearer}
    answer = await intake.client.post("/v1/activities", content=body, headers=sent)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert not await rows(database, "SELECT 1 AS x FROM deliveries")


async def test_a_gzipped_batch_is_read_and_kept_as_it_came(intake: Intake, database: Database) -> None:
    body = gzip.compress(json.dumps({"batch": [{"type": "track", **TRACK}]}).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert (await intake.client.post("/v1/batch", content=body, headers=headers, auth=BASIC)).status_code == 200
    (kept,) = await rows(database, "SELECT body FROM deliveries")
    assert bytes(kept.body) == body


async def test_a_body_of_unknown_length_is_counted_while_it_comes(intake: Intake) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 10_000
            yield b" " * 10_000

    headers = {"Content-Type": "application/json"}
    answer = await intake.client.post("/v1/batch", content=endless(), headers=headers, auth=BASIC)
    assert answer.status_code == 413
    assert sent <= MAX_BATCH_BYTES + 50_000


async def test_without_the_database_a_sender_is_asked_to_come_back() -> None:
    limits = Limits(connect_seconds=2, pool_seconds=2, attempts=1)
    nowhere = Database("postgresql://nobody@127.0.0.1:1/none", service="scoring", limits=limits)
    async with serving(nowhere) as intake:
        answer = await intake.client.post("/v1/track", json=TRACK, auth=BASIC)
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
    await nowhere.close()


async def test_what_could_not_be_used_is_listed_page_by_page(intake: Intake) -> None:
    items = [{"id": str(number), **page(user_id="null")} for number in range(5)]
    await intake.client.post("/v1/activities", json=items, headers=intake.bearer)
    await intake.client.post("/v1/activities", json=items, headers=intake.bearer)
    seen: list[str] = []
    place: dict[str, str | int] | None = {"limit": 2}
    while place is not None:
        listed = (await intake.client.get("/v1/quarantine", params=place, headers=intake.bearer)).json()
        seen += [item["source_id"] for item in listed["items"]]
        place = {"limit": 2, "cursor": listed["next"]} if listed["next"] else None
    assert sorted(seen) == ["0", "1", "2", "3", "4"]
    assert (await intake.client.get("/v1/quarantine")).status_code == 401


async def test_identities_that_lead_to_two_people_are_listed(intake: Intake) -> None:
    for user in ("u1", "u2"):
        await intake.client.post(
            "/v1/activities", json=page(user_id=user, email="office@acme.example"), headers=intake.bearer
        )
    (conflict,) = (await intake.client.get("/v1/identity-conflicts", headers=intake.bearer)).json()["items"]
    assert conflict["kind"] == "email"
    assert conflict["lead_id"] != conflict["other_lead_id"]
