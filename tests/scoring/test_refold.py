"""A new version of the agreement reaches every lead, whatever is wrong with one of them."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

import pytest

from services.scoring.refold import PUT_OFF, Pace, refold_step
from shared.db import Database, Limits, Session
from shared.sql import sql
from shared.telemetry import metrics
from tests.scoring.leads import AGREEMENT, NOON, activity
from tests.scoring.scorer import Scorer
from tests.silence import silent_database, silent_port
from tests.support import Databases

pytestmark = pytest.mark.slow

VERSIONS = sql("SELECT lead_id, agreement_version FROM leads ORDER BY lead_id")
SPOIL = sql("UPDATE leads SET facts = :facts WHERE lead_id = :lead_id")
SLOWLY = """
    CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql
    AS 'BEGIN PERFORM pg_sleep(0.05); RETURN new; END'
"""
LEADS = [f"lead_{number:03}" for number in range(40)]


@pytest.fixture
async def scorer(databases: Databases) -> Scorer:
    """A second version came into force after the first one scored everybody."""
    scorer = Scorer(databases.open("scoring"))
    await scorer.publish()
    await scorer.take(*(activity("email_clicked", id=lead_id, lead_id=lead_id) for lead_id in LEADS))
    await scorer.publish(2, AGREEMENT.replace("points: 3.33", "points: 4"))
    return scorer


async def spoil(scorer: Scorer, lead_id: str, facts: str = '{"a": 1}') -> None:
    await scorer.database.run(lambda session: session.execute(SPOIL, lead_id=lead_id, facts=facts))


async def outdated(scorer: Scorer) -> set[str]:
    rows = await scorer.database.read(lambda session: session.execute(VERSIONS))
    return {row.lead_id for row in rows if row.agreement_version < 2}


async def run(scorer: Scorer, pace: Pace, now: datetime = NOON) -> int:
    """Until nothing is left to do at once; how many steps it took."""
    steps = 1
    while await refold_step(scorer.database, pace, lambda: now):
        steps += 1
        assert steps < 100
    return steps


async def test_one_lead_that_cannot_be_folded_is_put_off_and_the_others_are_done(scorer: Scorer) -> None:
    bad = {LEADS[0], LEADS[17], LEADS[39]}
    for lead_id in bad:
        await spoil(scorer, lead_id)
    before = metrics.leads_put_off._value.get()
    pace = Pace()
    await run(scorer, pace)
    assert await outdated(scorer) == bad
    assert pace.put_off == dict.fromkeys(bad, NOON + PUT_OFF)
    assert metrics.leads_put_off._value.get() == before + 3


async def test_a_lead_that_was_put_off_is_tried_again_later(scorer: Scorer) -> None:
    await spoil(scorer, LEADS[3])
    pace = Pace()
    await run(scorer, pace)
    await spoil(scorer, LEADS[3], "{}")
    await run(scorer, pace, NOON + PUT_OFF - timedelta(seconds=1))
    assert await outdated(scorer) == {LEADS[3]}
    await run(scorer, pace, NOON + PUT_OFF)
    assert await outdated(scorer) == set()
    assert pace == Pace(taken=())


async def test_healthy_leads_are_done_in_whole_batches(scorer: Scorer) -> None:
    assert await run(scorer, Pace()) == 2
    assert await outdated(scorer) == set()


@pytest.mark.postgres
@pytest.mark.parametrize("databases", ["postgresql"], indirect=True)
async def test_a_statement_that_takes_too_long_makes_the_batch_smaller(scorer: Scorer) -> None:
    for statement in (SLOWLY, "CREATE TRIGGER slowly BEFORE UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION slowly()"):
        await scorer.database.run(partial(_execute, statement))
    url = scorer.database.url.render_as_string(hide_password=False)
    hasty, pace = Database(url, service="scoring", limits=Limits(statement_seconds=0.5)), Pace()
    while await refold_step(hasty, pace, lambda: NOON):
        assert pace.size < 40
    await hasty.close()
    assert await outdated(scorer) == set()
    assert pace.put_off == {}


async def _execute(statement: str, session: Session) -> None:
    await session.execute(sql(statement))


async def test_a_silent_database_puts_nobody_off_and_is_waited_for() -> None:
    pace = Pace()
    with silent_port() as port:
        database = silent_database(port, "scoring", Limits(connect_seconds=0.2, pool_seconds=0.2))
        assert not await refold_step(database, pace, lambda: NOON)
    assert pace == Pace()


@pytest.mark.postgres
@pytest.mark.parametrize("databases", ["postgresql"], indirect=True)
async def test_leads_that_somebody_holds_are_left_to_him(scorer: Scorer) -> None:
    async def hold(session: Session) -> None:
        await session.execute(sql("SELECT lead_id FROM leads WHERE lead_id < 'lead_010' {for_update}"))
        await run(scorer, Pace())

    await scorer.database.run(hold)
    assert await outdated(scorer) == set(LEADS[:10])
