"""What handoff answers over HTTP (services/handoff/api.py, agreement_api.py)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from services.handoff.api import routes
from services.handoff.case import Handoff
from services.handoff.route import UNROUTED_FOR_AT_MOST
from shared.db import Database
from shared.events import LeadMerged
from shared.security import Keyring, new_key
from shared.web import add_problem_handlers
from tests.handoff import terms
from tests.handoff.support import ACME, ALWAYS_OPEN, emitted_types, handed_over, handle, publish
from tests.support import Databases

pytestmark = pytest.mark.slow

KEY, ENTRY = new_key(["handoffs:read", "handoffs:write", "agreements:read", "agreements:write"])
READER_KEY, READER_ENTRY = new_key(["handoffs:read"])
PROBLEM = "application/problem+json"


@pytest.fixture
async def database(databases: Databases) -> Database:
    return databases.open("handoff")


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(routes(database, Keyring([ENTRY, READER_ENTRY])))
    add_problem_handlers(app)
    transport = httpx.ASGITransport(app)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://baton", headers=headers) as client:
        yield client


@pytest.fixture
async def handoff(database: Database) -> Handoff:
    await publish(database, ALWAYS_OPEN)
    return await handed_over(database)


async def say(
    client: httpx.AsyncClient, handoff: Handoff, verb: str, *, key: str | None = None, **word: str | None
) -> httpx.Response:
    """The owner says it about the handoff as given."""
    headers = {"If-Match": f'"{handoff.version}"', **({"Idempotency-Key": key} if key else {})}
    body = {"by": handoff.owner, **word}
    return await client.post(f"/v1/handoffs/{handoff.handoff_id}/{verb}", json=body, headers=headers)


async def draft(client: httpx.AsyncClient, content: str = ACME) -> dict[str, Any]:
    answer = await client.post("/v1/agreements", content=content.encode(), headers={"Content-Type": "application/yaml"})
    assert answer.status_code in (200, 201), answer.text
    body: dict[str, Any] = answer.json()
    return body


async def sign(client: httpx.AsyncClient, id: str, party: str, signed_by: str) -> httpx.Response:
    return await client.post(
        f"/v1/agreements/{id}/signatures", json={"party": party, "signed_by": signed_by, "sha256": id}
    )


# Agreements


async def test_an_agreement_is_drafted_signed_by_both_heads_and_published(client: httpx.AsyncClient) -> None:
    drafted = await draft(client)
    assert (drafted["state"], drafted["id"], drafted["signatures"]) == ("draft", drafted["sha256"], [])
    refused = await client.post(f"/v1/agreements/{drafted['id']}/publication")
    assert (refused.status_code, refused.json()["missing"]) == (409, ["marketing", "sales"])
    await sign(client, drafted["id"], "marketing", "mia@acme.example")
    signed = await sign(client, drafted["id"], "sales", "sam@acme.example")
    assert signed.json()["state"] == "signed"
    published = await client.post(f"/v1/agreements/{drafted['id']}/publication")
    assert published.status_code == 200
    assert (published.json()["version"], published.json()["state"]) == (1, "published")
    assert published.json()["effective_from"] == published.json()["published_at"]
    assert (await client.get(f"/v1/agreements/{drafted['id'].upper()}")).json()["content"] == ACME


async def test_drafting_is_201_once_and_200_for_the_same_content(client: httpx.AsyncClient) -> None:
    first = await client.post("/v1/agreements", content=ACME.encode())
    again = await client.post("/v1/agreements", content=ACME.encode())
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()


@pytest.mark.parametrize("content", [b"agreement: [", b"\xff\xfe", b""])
async def test_what_is_no_agreement_is_a_problem(client: httpx.AsyncClient, content: bytes) -> None:
    answer = await client.post("/v1/agreements", content=content)
    assert (answer.status_code, answer.headers["Content-Type"]) == (422, PROBLEM)
    assert answer.json()["type"] == "/problems/agreement-invalid"


async def test_only_a_head_signs(client: httpx.AsyncClient) -> None:
    drafted = await draft(client)
    answer = await sign(client, drafted["id"], "sales", "ana@acme.example")
    assert (answer.status_code, answer.json()["head"]) == (422, "sam@acme.example")
    assert (await sign(client, drafted["id"], "support", "ana@acme.example")).status_code == 422


async def test_agreements_are_listed_page_by_page_from_the_newest(client: httpx.AsyncClient) -> None:
    ids = [(await draft(client, f"{ACME}# {place}\n"))["id"] for place in range(5)]
    seen: list[str] = []
    query: dict[str, str | int] = {"limit": 2}
    while True:
        page = (await client.get("/v1/agreements", params=query)).json()
        seen += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        query["cursor"] = page["next"]
    assert seen == ids[::-1]


async def test_an_unknown_agreement_is_not_found(client: httpx.AsyncClient) -> None:
    assert (await client.get(f"/v1/agreements/{'0' * 64}")).status_code == 404
    assert (await client.post(f"/v1/agreements/{'0' * 64}/publication")).status_code == 404


# Handoffs


async def test_a_handoff_shows_its_clocks_history_and_why_this_rep(client: httpx.AsyncClient, handoff: Handoff) -> None:
    answer = await client.get(f"/v1/handoffs/{handoff.handoff_id}")
    assert (answer.status_code, answer.headers["ETag"]) == (200, f'"{handoff.version}"')
    shown = answer.json()
    assert (shown["id"], shown["mql_id"], shown["lead_id"]) == (handoff.handoff_id, "mql_lead_1", "lead_1")
    assert (shown["state"], shown["owner"], shown["pool"]) == ("assigned", handoff.owner, "na-robots")
    clocks = {clock["milestone"]: clock for clock in shown["clocks"]}
    assert set(clocks) == {"accept", "first_touch"}
    assert (clocks["accept"]["subject"], clocks["first_touch"]["subject"]) == (handoff.owner, "lead")
    assert clocks["accept"]["state"] == "open"
    assert 0 <= clocks["first_touch"]["elapsed_seconds"] == clocks["first_touch"]["wall_seconds"] < 60
    assert shown["due_at"] == min(clock["due_at"] for clock in shown["clocks"])
    assert [(line["from"], line["to"], line["type"]) for line in shown["history"]] == [
        (None, "assigned", "handoff.assigned")
    ]
    (decision,) = shown["routing"]
    assert (decision["pool"], decision["chosen"], decision["strategy"]) == ("na-robots", handoff.owner, "fair_share")
    assert [candidate["rep"] for candidate in decision["candidates"]] == ["ana", "bo", "chi"]
    assert shown["touches"] == []


async def test_a_transition_answers_the_handoff_as_it_is_then(client: httpx.AsyncClient, handoff: Handoff) -> None:
    answer = await say(client, handoff, "touch", kind="call_logged")
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert [line["type"] for line in shown["history"]] == ["handoff.assigned", "handoff.accepted", "handoff.touched"]
    (touch,) = shown["touches"]
    assert (touch["kind"], touch["performer"], touch["counted"]) == ("call_logged", handoff.owner, True)
    read = await client.get(f"/v1/handoffs/{handoff.handoff_id}")
    assert read.headers["ETag"] == answer.headers["ETag"] == f'"{shown["version"]}"'
    assert read.json()["state"] == "accepted"


async def test_a_transition_needs_the_version_its_sender_has_read(client: httpx.AsyncClient, handoff: Handoff) -> None:
    without = await client.post(f"/v1/handoffs/{handoff.handoff_id}/accept", json={"by": handoff.owner})
    assert (without.status_code, without.headers["Content-Type"]) == (428, PROBLEM)
    assert (await say(client, handoff, "accept")).status_code == 200
    stale = await say(client, handoff, "accept")
    assert (stale.status_code, stale.headers["ETag"]) == (412, f'"{handoff.version + 1}"')


async def test_a_repeat_with_its_key_gets_the_same_answer_and_has_no_second_effect(
    database: Database, client: httpx.AsyncClient, handoff: Handoff
) -> None:
    first = await say(client, handoff, "accept", key="k1")
    repeat = await say(client, handoff, "accept", key="k1")
    assert (repeat.status_code, repeat.json(), repeat.headers["ETag"]) == (200, first.json(), first.headers["ETag"])
    assert ("Idempotent-Replayed" in first.headers, repeat.headers["Idempotent-Replayed"]) == (False, "true")
    assert (await emitted_types(database)).count("handoff.accepted") == 1
    other = await say(client, handoff, "reject", key="k1", reason="not_a_fit")
    assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-key-reused")


async def test_repeats_at_once_with_one_key_have_one_effect(
    database: Database, client: httpx.AsyncClient, handoff: Handoff
) -> None:
    answers = await asyncio.gather(*(say(client, handoff, "accept", key="k1") for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert (await emitted_types(database)).count("handoff.accepted") == 1


async def test_a_refusal_is_not_kept_for_the_key(client: httpx.AsyncClient, handoff: Handoff) -> None:
    body = {"by": handoff.owner}
    path = f"/v1/handoffs/{handoff.handoff_id}/accept"
    stale = await client.post(path, json=body, headers={"If-Match": '"99"', "Idempotency-Key": "k1"})
    assert stale.status_code == 412
    assert (await say(client, handoff, "accept", key="k1")).status_code == 200


async def test_a_wrong_reason_is_a_problem_that_lists_the_legal_ones(
    client: httpx.AsyncClient, handoff: Handoff
) -> None:
    answer = await say(client, handoff, "reject", reason="not_fit")
    assert (answer.status_code, answer.headers["Content-Type"]) == (422, PROBLEM)
    body = answer.json()
    assert (body["type"], body["nearest"]) == ("/problems/unknown-reason", "not_a_fit")
    assert "other" in body["allowed"]
    assert (await say(client, handoff, "reject")).json()["type"] == "/problems/unknown-reason"


async def test_what_the_state_does_not_allow_is_a_409_that_lists_what_it_does(
    client: httpx.AsyncClient, handoff: Handoff
) -> None:
    answer = await say(client, handoff, "recycle", reason="no_budget")
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/illegal-transition")
    assert answer.json()["allowed"] == ["accept", "reject", "touch"]


async def test_a_misspelt_field_is_refused_not_ignored(client: httpx.AsyncClient, handoff: Handoff) -> None:
    answer = await say(client, handoff, "reject", raeson="not_a_fit")
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-request")


async def test_reading_is_not_writing(client: httpx.AsyncClient, handoff: Handoff) -> None:
    client.headers["Authorization"] = f"Bearer {READER_KEY}"
    assert (await client.get(f"/v1/handoffs/{handoff.handoff_id}")).status_code == 200
    assert (await say(client, handoff, "accept")).status_code == 403
    assert (await client.get("/v1/agreements")).status_code == 403
    del client.headers["Authorization"]
    assert (await client.get("/v1/handoffs")).status_code == 401


async def test_handoffs_are_listed_by_state_owner_and_lead(
    database: Database, client: httpx.AsyncClient, handoff: Handoff
) -> None:
    others = [await handed_over(database, f"lead_{place}") for place in range(2, 8)]
    await say(client, handoff, "accept")

    async def listed(**query: str | int) -> list[str]:
        page = (await client.get("/v1/handoffs", params=query)).json()
        more = await listed(**{**query, "cursor": page["next"]}) if page["next"] else []
        return [item["id"] for item in page["items"]] + more

    newest_first = [each.handoff_id for each in [*others[::-1], handoff]]
    assert await listed(limit=3) == newest_first
    assert await listed(state="accepted") == [handoff.handoff_id]
    assert await listed(lead="lead_4") == [others[2].handoff_id]
    by_owner = [await listed(owner=rep, state="assigned") for rep in ("ana", "bo", "chi", "dee")]
    assert sorted(id for ids in by_owner for id in ids) == sorted(each.handoff_id for each in others)
    assert (await client.get("/v1/handoffs", params={"state": "asigned"})).status_code == 422
    assert (await client.get("/v1/handoffs", params={"cursor": "what?"})).status_code == 400


async def test_what_nobody_has_is_listed_with_why_of_each_candidate_and_since_when(
    database: Database, client: httpx.AsyncClient
) -> None:
    await terms.publish(database)
    since = datetime.now(UTC) - timedelta(minutes=3)
    await handle(database, terms.mql("lead_1", product="sensors", at=since), at=since)
    await handle(database, terms.mql("lead_2", product="sensors"))
    page = (await client.get("/v1/handoffs", params={"state": "unrouted"})).json()
    newer, older = page["items"]
    assert newer["unrouted"]["since"] > older["unrouted"]["since"] == since.isoformat().replace("+00:00", "Z")
    assert datetime.fromisoformat(older["unrouted"]["last_resort_at"]) == since + UNROUTED_FOR_AT_MOST
    assert older["unrouted"]["candidates"] == {"gone": "is not active"}
    assert (await client.get(f"/v1/handoffs/{older['id']}")).json()["unrouted"] == older["unrouted"]


async def test_an_absorbed_lead_is_asked_for_by_either_name(
    database: Database, client: httpx.AsyncClient, handoff: Handoff
) -> None:
    await handle(database, LeadMerged(absorbed_id="lead_1", survivor_id="lead_0", merged_at=handoff.opened_at))
    for lead in ("lead_0", "lead_1"):
        (item,) = (await client.get("/v1/handoffs", params={"lead": lead})).json()["items"]
        assert (item["lead_id"], item["opened_for"]) == ("lead_0", "lead_1")


async def test_the_reps_are_those_of_the_agreement_in_force_with_their_open_handoffs(
    client: httpx.AsyncClient, handoff: Handoff
) -> None:
    answer = (await client.get("/v1/reps")).json()
    assert answer["agreement_version"] == 1
    reps = {rep["id"]: rep for rep in answer["items"]}
    assert {id: rep["open_handoffs"] for id, rep in reps.items()} == {
        id: int(id == handoff.owner) for id in ("ana", "bo", "chi", "dee")
    }
    assert reps["bo"]["pools"] == ["na-robots", "inbound"]
    assert "email" not in reps["bo"]
