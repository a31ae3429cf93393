"""Each invariant is broken on purpose once, and `baton check` names it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.handoff.checks import checks
from services.handoff.handlers import record_sales, route_leads
from shared.sql import sql
from tests.handoff.terms import handle, minutes, mql, publish
from tests.handoff.test_handlers import touched
from tests.support import Databases

LONG_AGO = "'2020-01-01T00:00:00.000000Z'"


@pytest.mark.parametrize(
    ("invariant", "damage"),
    [
        ("I8", "UPDATE handoffs SET mql_id = 'mql_of_somebody_else'"),
        ("I9", "UPDATE clocks SET state = 'closed' WHERE milestone = 'next_step'"),
        ("I9", "UPDATE clocks SET state = 'open' WHERE milestone = 'accept'"),
        ("I9", "UPDATE handoffs SET state = 'rejected'"),
        ("I10", f"UPDATE clocks SET breached_at = {LONG_AGO}"),
        ("I10", f"UPDATE clocks SET due_at = {LONG_AGO} WHERE state = 'open'"),
        ("I12", "DELETE FROM handoff_history WHERE version = 2"),
        ("I12", "UPDATE handoff_history SET to_state = 'won' WHERE version = 3"),
        ("I12", "UPDATE handoff_history SET type = 'handoff.won' WHERE version = 2"),
        ("I22", "DELETE FROM leads"),
        ("I22", "UPDATE touches SET lead_id = 'lead_nobody'"),
        ("I22", "UPDATE handoff_history SET handoff_id = 'handoff_gone' WHERE version = 3"),
        ("I22", "UPDATE leads SET merged_into = 'lead_nobody'"),
        ("I22", "UPDATE handoffs SET state = 'unrouted', route_at = NULL"),
    ],
)
async def test_what_is_broken_is_found(databases: Databases, invariant: str, damage: str) -> None:
    database = databases.open("handoff")
    await publish(database)
    at = datetime.now(UTC) - minutes(2)
    await handle(database, route_leads, [mql(at=at)])
    await handle(database, record_sales, [touched("lead_1", "ana", at + minutes(1))])
    assert await database.read(checks) == []
    await database.run(lambda session: session.execute(sql(damage.replace(":", r"\:"))))
    found = await database.read(checks)
    assert invariant in {finding.invariant for finding in found}
    assert all(finding.subject and "@" not in finding.detail for finding in found)
