"""Each invariant is broken on purpose once, and `baton check` names it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from services.handoff.checks import checks
from services.handoff.handlers import record_sales, route_leads
from services.handoff.store.clocks import COLUMNS
from shared.db import Session
from shared.sql import sql
from tests.handoff.terms import handle, minutes, mql, publish
from tests.handoff.test_handlers import deal, touched
from tests.support import Databases

pytestmark = pytest.mark.slow

LONG_AGO = "'2020-01-01T00:00:00.000000Z'"
AS_THEY_ARE = ", ".join(name for name in COLUMNS if name != "clock_id")
TWICE_FIRED = f"""
    UPDATE clocks SET state = 'breached', breached_at = due_at, met_at = NULL WHERE milestone = 'accept';
    INSERT INTO clocks (clock_id, {AS_THEY_ARE}) SELECT 'clock_again', {AS_THEY_ARE} FROM clocks
    WHERE milestone = 'accept'
"""


@pytest.mark.parametrize(
    ("invariant", "damage"),
    [
        ("I8", "UPDATE handoffs SET mql_id = 'mql_of_somebody_else'"),
        ("I9", "UPDATE clocks SET state = 'closed' WHERE milestone = 'next_step'"),
        ("I9", "UPDATE clocks SET state = 'open' WHERE milestone = 'accept'"),
        ("I9", "UPDATE handoffs SET state = 'rejected'"),
        ("I10", f"UPDATE clocks SET breached_at = {LONG_AGO}"),
        ("I10", f"UPDATE clocks SET due_at = {LONG_AGO} WHERE state = 'open'"),
        ("I10", f"UPDATE clocks SET met_at = {LONG_AGO}"),
        ("I10", f"UPDATE clocks SET due_at = {LONG_AGO} WHERE state = 'met'"),
        ("I10", "UPDATE clocks SET state = 'breached'"),
        ("I10", "UPDATE clocks SET ended_at = started_at WHERE state = 'open'"),
        ("I10", TWICE_FIRED),
        ("I12", "DELETE FROM handoff_history WHERE version = 2"),
        ("I12", "UPDATE handoff_history SET to_state = 'won' WHERE version = 3"),
        ("I12", "UPDATE handoff_history SET type = 'handoff.won' WHERE version = 2"),
        ("I12", "UPDATE handoff_history SET version = version + 10"),
        ("I12", "DELETE FROM handoff_history"),
        ("I12", "DELETE FROM handoff_history WHERE version = 3"),
        ("I22", "DELETE FROM leads"),
        ("I22", "UPDATE touches SET lead_id = 'lead_nobody'"),
        ("I22", "UPDATE handoff_history SET handoff_id = 'handoff_gone' WHERE version = 3"),
        ("I22", "UPDATE leads SET merged_into = 'lead_nobody'"),
        ("I22", "UPDATE handoffs SET state = 'unrouted', route_at = NULL"),
        ("I22", f"UPDATE handoffs SET route_at = {LONG_AGO}"),
        ("I22", "DELETE FROM agreements"),
        ("I22", "UPDATE opportunities SET lead_id = 'lead_nobody'"),
        ("I22", "UPDATE opportunities SET handoff_id = 'handoff_gone'"),
        ("I22", "UPDATE clocks SET handoff_id = 'handoff_gone'"),
    ],
)
async def test_what_is_broken_is_found(databases: Databases, invariant: str, damage: str) -> None:
    database = databases.open("handoff")
    await publish(database)
    at = datetime.now(UTC) - minutes(2)
    await handle(database, route_leads, [mql(at=at)])
    await handle(database, record_sales, [touched("lead_1", "ana", at + minutes(1)), deal("lead_1", "unmapped", at)])
    assert await database.read(lambda session: checks(session, grace=timedelta())) == []
    for statement in damage.split(";"):
        await database.run(partial(Session.execute, statement=sql(statement.replace(":", r"\:"))))
    found = await database.read(checks)
    assert invariant in {finding.invariant for finding in found}
    assert all(finding.subject and "@" not in finding.detail for finding in found)


async def test_what_waits_for_a_worker_has_the_grace_it_is_given(databases: Databases) -> None:
    database = databases.open("handoff")
    await publish(database)
    await handle(database, route_leads, [mql(at=datetime.now(UTC) - minutes(11))])
    (finding,) = await database.read(checks)
    assert (finding.invariant, finding.detail[:20]) == ("I10", "open, and due since ")
    assert await database.read(lambda session: checks(session, grace=minutes(5))) == []
