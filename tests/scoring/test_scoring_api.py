"""What people ask about leads, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal

import httpx
import pytest
from fastapi import FastAPI

from services.scoring.api import routes
from shared.db import Session
from shared.security import Keyring, new_key
from shared.sql import sql
from shared.web import add_problem_handlers
from tests.scoring.leads import ANNA, BERT, NOON, VISITOR, a_good_company, activity, pricing
from tests.scoring.scorer import Scorer, merged
from tests.support import Databases

KNOWS = sql(
    "INSERT INTO identities (kind, value, lead_id, created_at) SELECT kind, value, lead_id, :at FROM {rows}",
    kind="text",
    value="text",
    lead_id="text",
)
TOLD = sql(
    "INSERT INTO contact_facts (lead_id, name, value, occurred_at, fact_id)"
    " SELECT lead_id, name, value, occurred_at, 'f' FROM {rows}",
    lead_id="text",
    name="text",
    value="text",
    occurred_at="timestamptz",
)


@pytest.fixture
async def scorer(databases: Databases) -> Scorer:
    scorer = Scorer(databases.open("scoring"))
    await scorer.publish()
    return scorer


@pytest.fixture
async def client(scorer: Scorer) -> AsyncIterator[httpx.AsyncClient]:
    key, entry = new_key(["leads:read"])
    app = FastAPI()
    add_problem_handlers(app)
    app.include_router(routes(scorer.database, Keyring([entry])))
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://baton", headers=headers
    ) as client:
        yield client


async def test_a_merged_lead_is_answered_with_the_lead_it_is_now(scorer: Scorer, client: httpx.AsyncClient) -> None:
    async def door(session: Session) -> None:
        await session.execute(KNOWS, [("anonymous_id", "v", VISITOR), ("email", "anna@acme.example", ANNA)], at=NOON)
        names = [(VISITOR, "name", "A.", NOON), (ANNA, "name", "Anna", NOON + timedelta(hours=1))]
        await session.execute(TOLD, [*names, (ANNA, "phone", "", NOON)])

    await scorer.database.run(door)
    await scorer.take(a_good_company(lead_id=VISITOR), merged(VISITOR, ANNA, weak=True), activity("demo_requested"))
    lead = (await client.get(f"/v1/leads/{VISITOR}")).json()
    assert (lead["id"], lead["stage"], lead["merged_from"]) == (ANNA, "mql", [VISITOR])
    assert lead["contact"] == {"email": "anna@acme.example", "name": "Anna"}
    assert lead["attributes"] == {"company_size": 500}
    assert [name["kind"] for name in lead["identities"]] == ["anonymous_id", "email"]
    (mql,) = lead["mqls"]
    assert (mql["cycle"], mql["clause"], mql["ended_at"]) == (1, "activity demo_requested", None)
    (score,) = lead["scores"]
    assert (score["score"], score["bucket"], score["agreement_version"]) == (30, "cold", 1)


async def test_an_explanation_sums_to_the_score(scorer: Scorer, client: httpx.AsyncClient) -> None:
    clicks = [activity("email_clicked", NOON - timedelta(days=n), id=f"{n}", received_at=NOON) for n in range(40)]
    await scorer.take(*clicks, *[pricing(n) for n in range(9)], a_good_company())
    (explained,) = (await client.get(f"/v1/leads/{ANNA}/explanation")).json()["scores"]
    assert sum(Decimal(str(line["points"])) for line in explained["lines"]) == Decimal(str(explained["score"]))
    assert "group_cap" in {line["kind"] for line in explained["lines"]}


async def test_leads_are_listed_by_bucket_page_by_page(scorer: Scorer, client: httpx.AsyncClient) -> None:
    ids = [f"lead_{place}" for place in range(5)]
    await scorer.take(*(activity("email_clicked", id=lead_id, lead_id=lead_id) for lead_id in ids))
    found: list[str] = []
    cursor: str | None = None
    while True:
        query = {"bucket": "cold", "limit": "2", **({"cursor": cursor} if cursor else {})}
        page = (await client.get("/v1/leads", params=query)).json()
        found += [item["id"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert found == ids
    assert (await client.get("/v1/leads", params={"bucket": "hot"})).json() == {"items": [], "next": None}


async def test_an_unknown_lead_and_a_cursor_of_another_list_are_problems(client: httpx.AsyncClient) -> None:
    assert (await client.get(f"/v1/leads/{BERT}")).json()["type"] == "/problems/lead-unknown"
    assert (await client.get("/v1/leads", params={"cursor": "WzFd"})).status_code == 400
