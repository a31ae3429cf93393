"""The checks of the spine, and those that need two services: I2 over the border, I8 both ways, I14."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from services.handoff.handlers import record_sales, route_leads
from services.scoring.door import Door
from shared.checks import GRACE, Finding, handoff_checks, sales_checks, service_checks
from shared.db import Database, Session
from shared.events import MqlQualified, OpportunityChanged, TouchRecorded
from shared.service import checks_of
from shared.sql import sql
from tests.handoff.terms import handle, publish
from tests.scoring.arriving import send, told
from tests.scoring.leads import activity
from tests.scoring.scorer import Scorer
from tests.support import Databases

pytestmark = pytest.mark.slow

DAY = timedelta(days=1)
NONE = timedelta()
PUBLISHED = "UPDATE outbox SET published_at = clock_timestamp()"
LATER = "UPDATE opportunities SET occurred_at = '2030-01-01T00:00:00.000000Z'"
EARLIER = "UPDATE opportunities SET occurred_at = '2020-01-01T00:00:00.000000Z'"
ONE_MORE = sql("INSERT INTO leads (lead_id, created_at) VALUES ('lead_1', clock_timestamp())")
DEAD_LETTER = """
    INSERT INTO outbox (event_id, topic, shard, key, value, headers, created_at)
    VALUES ('{}', 'baton.handoff.dlq.v1', 0, '', '', '[]', clock_timestamp())
"""


@dataclass
class Both:
    """Scoring, and handoff behind it: an MQL with its handoff, and a call and a deal that handoff heard of."""

    scoring: Database
    handoff: Database
    mql_id: str = ""

    async def run(self, database: Database, statement: str) -> None:
        await database.run(partial(Session.execute, statement=sql(statement.replace(":00", r"\:00"))))

    async def live(self) -> None:
        scorer = Scorer(self.scoring)
        await scorer.publish()
        await scorer.take(activity("demo_requested", datetime.now(UTC), id="act_1", qualify_any_age=True))
        door = Door(self.scoring)
        who = {"identities": {"email": "ana@acme.example"}}
        deal = {"type": "opportunity", "opportunity_id": "deal_9", "stage": "closedwon", **who}
        await send(door, {"type": "touch", "kind": "call_logged", "by": "ana", **who}, deal)
        await door.close()
        await self.run(self.scoring, PUBLISHED)
        await publish(self.handoff)
        events = await told(self.scoring)
        (mql,) = [event for event in events if isinstance(event, MqlQualified)]
        self.mql_id = mql.mql_id
        await handle(self.handoff, route_leads, [mql])
        sales = [event for event in events if isinstance(event, TouchRecorded | OpportunityChanged)]
        assert len(sales) == 2
        await handle(self.handoff, record_sales, sales)
        await self.run(self.handoff, PUBLISHED)

    async def findings(self, grace: timedelta = NONE) -> list[Finding]:
        """All that `baton check` says of both."""
        found = []
        for database in (self.scoring, self.handoff):
            check = checks_of(database.service)
            found += await database.read(partial(service_checks, check=check, grace=grace))
        found += await handoff_checks(self.scoring, self.handoff, grace=grace)
        return found + await sales_checks(self.scoring, self.handoff, grace=grace)


@pytest.fixture
async def both(databases: Databases) -> Both:
    both = Both(databases.open("scoring"), databases.open("handoff"))
    await both.live()
    return both


async def test_two_services_that_agree_are_healthy(both: Both) -> None:
    assert await both.findings() == []
    assert await both.findings(GRACE) == []


@pytest.mark.parametrize(
    ("invariant", "service", "damage"),
    [
        ("I2", "handoff", "DELETE FROM touches"),
        ("I2", "handoff", "DELETE FROM opportunities"),
        ("I2", "handoff", EARLIER),
        ("I8", "handoff", "DELETE FROM handoffs"),
        ("I8", "scoring", "DELETE FROM mqls"),
        ("I14", "scoring", "UPDATE outbox SET published_at = NULL"),
        ("I14", "handoff", "UPDATE outbox SET published_at = NULL, parked_at = created_at, parked_cause = 'too large'"),
    ],
)
async def test_what_is_broken_between_them_is_found(both: Both, invariant: str, service: str, damage: str) -> None:
    await both.run(both.scoring if service == "scoring" else both.handoff, damage)
    found = [finding for finding in await both.findings() if finding.invariant == invariant]
    assert found
    assert all(finding.subject and "@" not in finding.detail for finding in found)


@pytest.mark.parametrize(
    ("invariant", "service", "damage"),
    [
        ("I2", "handoff", "DELETE FROM touches"),
        ("I8", "handoff", "DELETE FROM handoffs"),
        ("I8", "scoring", "DELETE FROM mqls"),
        ("I14", "scoring", "UPDATE outbox SET published_at = NULL"),
    ],
)
async def test_what_is_younger_than_the_grace_is_still_under_way(
    both: Both, invariant: str, service: str, damage: str
) -> None:
    await both.run(both.scoring if service == "scoring" else both.handoff, damage)
    assert invariant not in {finding.invariant for finding in await both.findings(DAY)}


async def test_a_handoff_without_its_mql_and_an_mql_without_its_handoff_are_named_by_the_mql(both: Both) -> None:
    await both.run(both.handoff, "UPDATE handoffs SET mql_id = 'mql_other'")
    found = await handoff_checks(both.scoring, both.handoff, grace=NONE)
    assert found == [
        Finding("I8", both.mql_id, "this MQL has no handoff"),
        Finding("I8", "mql_other", "there is a handoff, and no such MQL"),
    ]


async def test_what_handoff_knows_better_or_dead_lettered_is_not_lost(both: Both) -> None:
    await both.run(both.handoff, LATER)
    assert await sales_checks(both.scoring, both.handoff, grace=NONE) == []
    await both.run(both.handoff, "DELETE FROM touches")
    (finding,) = await sales_checks(both.scoring, both.handoff, grace=NONE)
    assert finding.subject.startswith("touch_")
    await both.run(both.handoff, DEAD_LETTER.format(finding.subject))
    assert await sales_checks(both.scoring, both.handoff, grace=NONE) == []


async def test_a_check_sees_one_moment(databases: Databases) -> None:
    """What another transaction commits meanwhile is not seen, on PostgreSQL either."""
    database = databases.open("scoring")
    await database.run(Session.now)  # on SQLite, the first writer begins the log that readers read beside
    count = sql("SELECT count(*) AS number FROM leads")
    counted: list[int] = []

    async def check(session: Session, /, *, grace: timedelta = GRACE) -> list[Finding]:
        for _ in range(2):
            counted.extend(row.number for row in await session.execute(count))
            if len(counted) == 1:
                await database.run(partial(Session.execute, statement=ONE_MORE))
        return []

    assert await database.read(partial(service_checks, check=check, grace=NONE)) == []
    assert counted == [0, 0]
