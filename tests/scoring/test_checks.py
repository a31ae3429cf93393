"""What `baton check` says of scoring: nothing of a healthy one, and each invariant once it is broken by hand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from services.scoring.checks import checks
from services.scoring.door import Door
from shared.checks import Finding
from shared.db import Database
from shared.events import ActivityRecorded, Event, MqlQualified
from shared.sql import sql
from tests.scoring.arriving import send, told
from tests.scoring.leads import ANNA, BERT, NOON, VISITOR, a_good_company, activity, pricing
from tests.scoring.scorer import Scorer, merged, rejected
from tests.support import Databases

pytestmark = pytest.mark.slow

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NOT_FIRST = "id > (SELECT min(id) FROM outbox)"  # before what it is of, rows may have been pruned
NO_GRACE = timedelta()
PUBLISHED = "UPDATE outbox SET published_at = clock_timestamp() WHERE published_at IS NULL"
DEAD_LETTER = """
    INSERT INTO outbox (event_id, topic, shard, key, value, headers, created_at, published_at)
    SELECT event_id, 'baton.scoring.dlq.v1', shard, key, value, headers, created_at, published_at FROM outbox
    WHERE event_id LIKE 'act_%'
"""
AGAIN = (
    DEAD_LETTER.replace("dlq", "activities")
    .replace(".scoring.activities", ".activities")
    .replace("event_id LIKE 'act_%'", "topic = 'baton.scoring.dlq.v1'")
)


@dataclass
class System:
    """The door, and the scorer behind it, without a log between them."""

    database: Database
    scorer: Scorer

    async def run(self, statement: str) -> None:
        await self.database.run(lambda session: session.execute(sql(re.sub(r"(?<!:):(?=\d)", r"\:", statement))))

    async def receive(self) -> None:
        """A page view; when it is published, another one, a call and a deal. The scorer stores the views."""
        view, who = {"kind": "page_viewed"}, {"identities": {"email": "ana@acme.example"}}
        touch = {"type": "touch", "kind": "call_logged", "by": "ana", **who}
        deal = {"type": "opportunity", "opportunity_id": "9", "stage": "closedwon", **who}
        door = Door(self.database)
        for items in ([{**view, "identities": {"user_id": "first"}}], [{**view, **who}, touch, deal]):
            assert {verdict.status for verdict in await send(door, *items)} == {"accepted"}
            await self.run(PUBLISHED)
        await door.close()
        await self.scorer.take(*[event for event in await told(self.database) if isinstance(event, ActivityRecorded)])

    async def findings(self, *, grace: timedelta = NO_GRACE) -> list[Finding]:
        return await self.database.read(lambda session: checks(session, grace=grace))

    async def found(self) -> set[str]:
        return {finding.invariant for finding in await self.findings()}


@pytest.fixture
async def system(databases: Databases) -> System:
    database = databases.open("scoring")
    scorer = Scorer(database)
    await scorer.publish()
    return System(database, scorer)


def a_life(lead_id: str = ANNA, name: str = "a") -> list[Event]:
    """Crosses at its webinar."""
    return [
        a_good_company(id=f"act_{name}1", lead_id=lead_id),
        *[pricing(n, id=f"act_{name}pricing{n}", lead_id=lead_id) for n in range(3)],
        activity("webinar_attended", NOON + HOUR, id=f"act_{name}webinar", lead_id=lead_id),
    ]


async def test_a_scorer_that_did_all_of_it_is_healthy(system: System) -> None:
    """Crossings by points and by raised hands, in a first and a second cycle, before and after merges."""
    await system.receive()
    await system.scorer.take(*a_life(), *a_life(VISITOR, "v"))
    await system.scorer.take(activity("demo_requested", id="act_b1", lead_id=BERT))
    mqls = {mql.lead_id: mql for mql in await system.scorer.told(MqlQualified)}
    assert mqls.keys() == {ANNA, BERT, VISITOR}
    await system.scorer.take(rejected(mqls[BERT], HOUR))
    await system.scorer.take(activity("demo_requested", NOON + 2 * HOUR, id="act_b2", lead_id=BERT))
    await system.scorer.take(merged(VISITOR, ANNA, weak=True))
    await system.scorer.take(activity("page_viewed", NOON + 90 * DAY, id="act_b3", lead_id=BERT))
    assert (BERT, 2) in await system.scorer.qualified()
    assert await system.findings() == []


async def test_what_does_not_qualify_a_lead_is_no_missing_mql(system: System) -> None:
    """Old imports, a cycle that has not waited, and a version that came after the last activity."""
    old: dict[str, Any] = {"received_at": NOON + 20 * DAY}
    await system.scorer.take(
        *a_life(),
        *[activity("webinar_attended", NOON + HOUR * n, id=f"act_{n}", lead_id=BERT, **old) for n in range(3)],
    )
    await system.scorer.take(a_good_company(id="act_b", lead_id=BERT, **old))
    (mql,) = await system.scorer.told(MqlQualified)
    await system.scorer.take(rejected(mql, 2 * HOUR))
    await system.scorer.take(activity("unknown", NOON + 3 * HOUR, id="act_u"))
    assert await system.scorer.qualified() == [(ANNA, 1)]
    assert await system.findings() == []


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM activities",
        "DELETE FROM outbox WHERE event_id LIKE 'touch_%'",
        "DELETE FROM outbox WHERE event_id LIKE 'opp_%'",
        DEAD_LETTER,
    ],
)
async def test_an_accepted_item_without_exactly_one_outcome_is_found(system: System, damage: str) -> None:
    await system.receive()
    assert await system.findings() == []
    await system.run(damage)
    assert "I2" in await system.found()
    assert all(finding.subject.startswith("act_") for finding in await system.findings() if finding.invariant == "I2")
    assert "I2" not in {finding.invariant for finding in await system.findings(grace=HOUR)}


async def test_an_accepted_item_that_left_no_trace_is_found_under_its_delivery(system: System) -> None:
    await system.receive()
    await system.run("DELETE FROM activities")
    await system.run(f"DELETE FROM outbox WHERE event_id LIKE 'act_%' AND {NOT_FIRST}")
    details = [finding.detail for finding in await system.findings() if finding.invariant == "I2"]
    assert sum("neither recorded nor told" in detail for detail in details) == 1


@pytest.mark.parametrize("how", ["waits", "parked", "dead", "sent again"])
async def test_an_item_on_its_way_or_dead_has_its_outcome(system: System, how: str) -> None:
    await system.receive()
    if how != "sent again":
        await system.run("DELETE FROM activities")
        await system.run("DELETE FROM lead_scores")
        await system.run("DELETE FROM leads")
    await system.run(
        {
            "waits": "UPDATE outbox SET published_at = NULL WHERE event_id LIKE 'act_%'",
            "parked": "UPDATE outbox SET published_at = NULL, parked_at = created_at WHERE event_id LIKE 'act_%'",
        }.get(how, DEAD_LETTER)
    )
    if how == "sent again":
        await system.run(AGAIN)
    assert await system.findings() == []


async def test_rows_that_the_relay_pruned_are_no_findings(system: System) -> None:
    await system.receive()
    await system.run("UPDATE inbox SET received_at = '2026-01-01T00:00:00.000000Z'")
    await system.run("DELETE FROM outbox WHERE topic IN ('baton.crm.v1', 'baton.activities.v1')")
    assert await system.findings() == []
    await system.run("DELETE FROM outbox")
    assert await system.findings() == []


@pytest.mark.parametrize(
    ("invariant", "damage"),
    [
        ("I4", "DELETE FROM activities WHERE activity_id = 'act_awebinar'"),
        ("I4", "UPDATE leads SET facts = '{}'"),
        ("I4", "UPDATE lead_scores SET score = score + 1"),
        ("I4", "UPDATE lead_scores SET bucket = 'lukewarm'"),
        ("I4", "UPDATE lead_scores SET tally = '{}'"),
        ("I4", "DELETE FROM lead_scores"),
        ("I7", "DELETE FROM mqls"),
        ("I7", "UPDATE mqls SET scorecard = 'sensors'"),
        ("I7", "UPDATE mqls SET cycle = 2"),
        ("I7", "UPDATE mqls SET qualified_at = '2026-03-10T16:01:00.000000Z', created_at = qualified_at"),
        ("I22", "UPDATE mqls SET lead_id = 'lead_gone'"),
        ("I22", "DELETE FROM leads"),
        ("I22", "UPDATE activities SET lead_id = 'lead_gone'"),
        ("I22", "UPDATE leads SET merged_into = 'lead_gone'"),
        ("I22", "UPDATE lead_scores SET lead_id = 'lead_gone'"),
        ("I22", "DELETE FROM agreements"),
    ],
)
async def test_what_is_broken_is_found(system: System, invariant: str, damage: str) -> None:
    await system.scorer.take(*a_life())
    await system.run(PUBLISHED)
    assert await system.findings() == []
    await system.run(damage.replace("created_at = qualified_at", "created_at = '2026-03-10T16:01:00.000000Z'"))
    assert invariant in await system.found()
    assert all(finding.subject and "@" not in finding.detail for finding in await system.findings())


async def test_a_second_open_mql_of_a_cycle_is_found(system: System) -> None:
    await system.scorer.take(activity("demo_requested", id="act_1"))
    columns = "made_for, lead_id, product, motion, scorecard, agreement_version, clause, crossed_by"
    await system.run(
        f"INSERT INTO mqls (mql_id, cycle, qualified_at, created_at, {columns})"
        f" SELECT 'mql_other', 2, qualified_at, created_at, {columns} FROM mqls"
    )
    details = {finding.detail for finding in await system.findings() if finding.invariant == "I7"}
    assert details == {"2 open MQLs for robots, new_business", "is of cycle 2, and the one before it had not ended"}


async def test_an_mql_of_a_lead_that_did_nothing_for_it_is_found(system: System) -> None:
    """The MQL of one lead, moved to another one that met no clause."""
    await system.scorer.take(*a_life(), a_good_company(id="act_b", lead_id=BERT))
    await system.run(f"UPDATE mqls SET lead_id = '{BERT}', made_for = '{BERT}'")
    found = [(finding.invariant, finding.detail) for finding in await system.findings()]
    assert ("I7", "robots: its lead met no clause when it was made") in found
