"""`GET /v1/deliveries`: what was told to whom, page by page, to those who may read it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from services.notifier.api import routes
from services.notifier.compose import Channel, Desk
from services.notifier.store.deliveries import PAGES
from shared.db import Database, Session
from shared.security import Keyring, new_key
from shared.sql import sql
from shared.web import add_problem_handlers
from tests.notifier.samples import FRIDAY, handoff, merged, mql, nurture, published
from tests.notifier.test_handlers import handle
from tests.support import Databases

DESK = Desk(frozenset({Channel.EMAIL}), "")
KEY, ENTRY = new_key(["deliveries:read"])
OTHER_KEY, OTHER_ENTRY = new_key(["leads:read"])


@pytest.fixture
async def database(databases: Databases) -> Database:
    return databases.open("notifier")


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(routes(database, Keyring([ENTRY, OTHER_ENTRY]), DESK.channels))
    add_problem_handlers(app)
    headers = {"Authorization": f"Bearer {KEY}"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://baton", headers=headers) as client:
        yield client


async def listed(client: httpx.AsyncClient, **query: str | int) -> Mapping[str, Any]:
    answer = await client.get("/v1/deliveries", params=query)
    assert answer.status_code == 200, answer.text
    page: Mapping[str, Any] = answer.json()
    return page


async def test_a_delivery_says_what_to_whom_and_how_it_stands(database: Database, client: httpx.AsyncClient) -> None:
    await handle(database, published(), mql(), handoff(), desk=DESK)
    (item,) = (await listed(client))["items"]
    assert item.pop("id").startswith("dlv_")
    assert item.pop("event_id").startswith("event-")
    assert item == {
        "event_type": "handoff.assigned",
        "receiver": "ana@acme.example",
        "channel": "email",
        "state": "pending",
        "attempts": 0,
        "next_attempt_at": FRIDAY.isoformat().replace("+00:00", "Z"),
        "delivered_at": None,
        "last_error": None,
        "lead_id": "lead_0199",
        "handoff_id": "handoff_1",
        "created_at": FRIDAY.isoformat().replace("+00:00", "Z"),
    }


async def test_no_answer_holds_what_the_message_says(database: Database, client: httpx.AsyncClient) -> None:
    await handle(database, published(), mql(contact={"name": "canary-1"}), handoff(), desk=DESK)
    assert "canary-1" not in (await client.get("/v1/deliveries")).text


async def test_pages_follow_each_other_without_gap_or_repeat(database: Database, client: httpx.AsyncClient) -> None:
    await handle(database, published(), mql(), *(handoff() for _ in range(5)), desk=DESK)
    seen: list[str] = []
    query: dict[str, str | int] = {"limit": 2}
    for expected in (2, 2, 1):
        page = await listed(client, **query)
        assert len(page["items"]) == expected
        seen += [item["id"] for item in page["items"]]
        query["cursor"] = page["next"]
    assert page["next"] is None
    assert len(set(seen)) == 5
    assert seen == [item["id"] for item in (await listed(client))["items"]]


async def test_the_list_is_narrowed_by_state_and_lead(database: Database, client: httpx.AsyncClient) -> None:
    other = mql(mql_id="mql_2", lead_id="lead_2")
    await handle(database, published(), mql(), other, handoff(), desk=DESK)
    await handle(database, handoff(number=2, lead_id="lead_2"), nurture(), desk=DESK)
    assert [item["event_type"] for item in (await listed(client, state="dead"))["items"]] == ["nurture.suspended"]
    assert [item["handoff_id"] for item in (await listed(client, lead="lead_2"))["items"]] == ["handoff_2"]
    assert (await listed(client, lead="lead_2", state="dead"))["items"] == []


async def test_a_lead_shows_what_was_said_of_those_it_absorbed(database: Database, client: httpx.AsyncClient) -> None:
    other = mql(mql_id="mql_2", lead_id="lead_2")
    await handle(database, published(), mql(), other, handoff(), handoff(number=2, lead_id="lead_2"), desk=DESK)
    await handle(database, merged("lead_2"))
    assert len((await listed(client, lead="lead_0199"))["items"]) == 2


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({}, ""),
        ({"state": "dead"}, "deliveries_by_state"),
        ({"lead": "lead_1"}, "deliveries_by_lead"),
        ({"state": "dead", "lead": "lead_1"}, "deliveries_by_"),
    ],
)
async def test_each_choice_of_filters_is_read_by_an_index(
    database: Database, filters: dict[str, Any], index: str
) -> None:
    """The planner chooses by what is in the table; the question here is whether it could."""

    async def plan(session: Session) -> str:
        if session.dialect == "postgresql":
            await session.execute(sql("SET LOCAL enable_seqscan = off"))
            await session.execute(sql("SET LOCAL enable_bitmapscan = off"))
        explain = "EXPLAIN" if session.dialect == "postgresql" else "EXPLAIN QUERY PLAN"
        statement = sql(f"{explain} {PAGES[tuple(filters)].sqlite.text}")
        return "\n".join(row[-1] for row in await session.execute(statement, before_seq=10**6, size=50, **filters))

    names = {"postgresql": "deliveries_pkey", "sqlite": "INTEGER PRIMARY KEY"}
    assert (index or names[database.dialect]) in await database.read(plan)


async def test_it_says_which_channels_are_configured(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/channels")).json() == {
        "items": [
            {"channel": "email", "configured": True},
            {"channel": "slack", "configured": False},
            {"channel": "automation", "configured": False},
        ],
        "next": None,
    }


@pytest.mark.parametrize("query", [{"state": "lost"}, {"limit": "0"}, {"limit": "501"}, {"cursor": "nonsense"}])
async def test_a_query_that_makes_no_sense_is_refused(client: httpx.AsyncClient, query: dict[str, str]) -> None:
    answer = await client.get("/v1/deliveries", params=query)
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("key", "status"), [("", 401), ("bt_x_" + "y" * 40, 401), (OTHER_KEY, 403)])
async def test_only_who_may_read_deliveries_does(client: httpx.AsyncClient, key: str, status: int) -> None:
    headers = {"Authorization": f"Bearer {key}"} if key else {"Authorization": ""}
    assert (await client.get("/v1/deliveries", headers=headers)).status_code == status
