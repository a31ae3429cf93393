"""Lists of handoffs are read by an index, however long the history is (services/handoff/store)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from services.handoff.store.lists import PAGES
from services.handoff.store.owners import OPEN_COUNTS
from shared.db import Database, Session
from shared.sql import Statement, sql
from tests.support import Databases

pytestmark = pytest.mark.slow

WITHOUT_SCANS = sql("SELECT set_config('enable_seqscan', 'off', true)")


@pytest.fixture
def database(databases: Databases) -> Database:
    return databases.open("handoff")


async def plan(database: Database, statement: Statement, parameters: Mapping[str, str | int | datetime]) -> str:
    """How the database would run it; PostgreSQL without the scans that it prefers while a table is empty."""
    text = str(statement.sqlite if database.dialect == "sqlite" else statement.postgresql)

    async def explained(session: Session) -> str:
        if database.dialect == "sqlite":
            rows = await session.execute(sql(f"EXPLAIN QUERY PLAN {text}"), None, **parameters)
            return " ".join(row.detail for row in rows)
        await session.execute(WITHOUT_SCANS)
        rows = await session.execute(sql(f"EXPLAIN {text}"), None, **parameters)
        return " ".join(row[0] for row in rows)

    return await database.read(explained)


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({}, "handoffs_newest"),
        ({"state": "unrouted"}, "handoffs_by_state"),
        ({"owner": "ana"}, "handoffs_by_owner"),
        ({"lead": "lead_1"}, "handoffs_of_lead"),
    ],
)
async def test_a_page_is_read_by_the_index_of_its_filter(
    database: Database, filters: dict[str, str], index: str
) -> None:
    before: dict[str, str | int | datetime] = {"before_at": datetime.now(UTC), "before_id": "~", "size": 50}
    assert f"{index} " in await plan(database, PAGES[frozenset(filters)], {**before, **filters})


async def test_who_has_how_many_is_counted_among_the_open_alone(database: Database) -> None:
    assert "handoffs_open " in f"{await plan(database, OPEN_COUNTS, {})} "
