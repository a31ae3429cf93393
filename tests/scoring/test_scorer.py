"""The scorer over its database: what it stores, what it tells, and that batches, repeats and merges change nothing."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta

import pytest

from services.scoring.checks import checks
from shared.events import ActivityRecorded, Event, LeadMerged, LeadScored, MqlQualified
from shared.outcomes import RetryLater
from shared.sql import sql
from tests.scoring.leads import AGREEMENT, ANNA, BERT, NOON, VISITOR, a_good_company, activity, pricing
from tests.scoring.scorer import Scorer, gave_way, merged, received, rejected
from tests.support import Databases

pytestmark = pytest.mark.slow

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
CARL = "lead_01900000-0000-7000-8000-00000000000c"


@pytest.fixture
async def scorer(databases: Databases) -> Scorer:
    scorer = Scorer(databases.open("scoring"))
    await scorer.publish()
    return scorer


def a_hot_life(lead_id: str = ANNA, prefix: str = "") -> list[ActivityRecorded]:
    """Crosses at its last activity, a webinar."""
    return [
        a_good_company(id=f"{prefix}company", lead_id=lead_id),
        *[pricing(n, id=f"{prefix}pricing{n}", lead_id=lead_id) for n in range(3)],
        activity("webinar_attended", NOON + HOUR, id=f"{prefix}webinar", lead_id=lead_id),
    ]


async def test_a_lead_that_crosses_is_told_once_with_its_explanation(scorer: Scorer) -> None:
    await scorer.take(*a_hot_life())
    (mql,) = await scorer.told(MqlQualified)
    assert (mql.lead_id, mql.cycle, mql.bucket, mql.qualified_at) == (ANNA, 1, "hot", NOON + HOUR)
    assert mql.clause == "fit >= 30 and engagement >= 50"
    assert round(sum(line.points for line in mql.explanation), 2) == mql.score
    assert mql.attributes == {"company_size": 500}
    (score,) = await scorer.told(LeadScored)
    assert (score.score, score.version, score.agreement_version) == (mql.score, 1, 1)


async def test_however_the_log_is_cut_and_repeated_the_outcome_is_the_same(databases: Databases) -> None:
    life = [*a_hot_life(), activity("demo_requested", NOON + DAY, id="demo")]
    outcomes = []
    for place, size in enumerate((1, 2, 3, 6)):
        scorer = Scorer(databases.open("scoring"))
        if place == 0:
            await scorer.publish()
        lead_id = f"lead_cut_{size}"
        mine = [
            activity(
                one.kind,
                one.occurred_at,
                id=f"{size}{one.activity_id}",
                lead_id=lead_id,
                properties=one.properties,
                attributes=one.attributes,
            )
            for one in life
        ]
        for start in range(0, len(mine), size):
            await scorer.take(*mine[start : start + size], *mine[:start])  # the log is read again each time
        (mql,) = [mql for mql in await scorer.told(MqlQualified) if mql.lead_id == lead_id]
        outcomes.append((mql.qualified_at, mql.score, (await scorer.scores())[lead_id]))
    assert all(outcome == outcomes[0] for outcome in outcomes)


async def test_a_repeated_activity_counts_once_also_within_a_batch(scorer: Scorer) -> None:
    click = activity("email_clicked", id="click")
    await scorer.take(click, click)
    await scorer.take(click)
    (score,) = await scorer.told(LeadScored)
    assert score.score == 3.33


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
async def test_merges_in_any_order_leave_the_score(scorer: Scorer, order: tuple[int, ...]) -> None:
    events: list[Event] = [
        activity("email_clicked", id="1", lead_id=ANNA),
        activity("email_clicked", NOON + HOUR, id="2", lead_id=VISITOR),
        merged(VISITOR, BERT, weak=True),
        merged(BERT, ANNA),
    ]
    for place in order:
        await scorer.take(events[place])
    await scorer.take(*(events[place] for place in order))
    scores = await scorer.scores()
    assert list(scores) == [ANNA]
    assert (await scorer.last_score(ANNA)).score == 6.66
    told = await scorer.told(LeadMerged)
    assert sorted(event.absorbed_id for event in told) == [VISITOR, BERT]


async def test_a_merge_and_its_activities_may_come_in_one_batch(scorer: Scorer) -> None:
    before = activity("email_clicked", id="1", lead_id=VISITOR)
    after = activity("email_clicked", NOON + HOUR, id="2", lead_id=VISITOR)
    await scorer.take(before, merged(VISITOR, ANNA, weak=True), after, merged(ANNA, VISITOR))
    assert (await scorer.last_score(ANNA)).score == 6.66
    rows = await scorer.database.read(
        lambda session: session.execute(sql("SELECT lead_id, came_in_under FROM activities ORDER BY activity_id"))
    )
    assert [tuple(row) for row in rows] == [(ANNA, VISITOR), (ANNA, VISITOR)]


async def test_a_merge_tells_the_survivors_score_however_often_the_other_one_was_told(scorer: Scorer) -> None:
    await scorer.take(activity("unknown", id="a"))
    await scorer.take(activity("email_clicked", id="1", lead_id=BERT))
    await scorer.take(activity("email_clicked", id="2", lead_id=BERT))
    await scorer.take(merged(BERT, ANNA))
    told = [(event.score, event.version) for event in await scorer.told(LeadScored) if event.lead_id == ANNA]
    assert told == [(0.0, 1), (6.66, 2)]


async def test_two_halves_of_a_person_cross_when_they_are_joined(scorer: Scorer) -> None:
    await scorer.take(*a_hot_life(VISITOR)[1:])
    await scorer.take(a_good_company(id="anna", lead_id=ANNA))
    assert await scorer.qualified() == []
    await scorer.take(merged(VISITOR, ANNA, weak=True))
    assert await scorer.qualified() == [(ANNA, 1)]


async def test_weak_evidence_joins_a_visitor_once_and_never_two_known_leads(scorer: Scorer) -> None:
    await scorer.take(merged(ANNA, BERT, weak=True), merged(VISITOR, ANNA, weak=True), merged(VISITOR, BERT, weak=True))
    assert [(one.absorbed_id, one.survivor_id) for one in await scorer.told(LeadMerged)] == [(VISITOR, ANNA)]


async def test_a_merge_names_the_root_for_everybody_who_was_merged_before(scorer: Scorer) -> None:
    await scorer.take(merged(CARL, BERT))
    await scorer.take(merged(BERT, ANNA))
    await scorer.take(merged(ANNA, CARL), merged(ANNA, ANNA))
    rows = await scorer.database.read(
        lambda session: session.execute(sql("SELECT lead_id, merged_into FROM leads ORDER BY lead_id"))
    )
    assert [tuple(row) for row in rows] == [(ANNA, None), (BERT, ANNA), (CARL, ANNA)]


async def test_a_merged_lead_stays_in_its_cycle_while_either_handoff_is_open(scorer: Scorer) -> None:
    await scorer.take(activity("demo_requested", id="a"), activity("demo_requested", id="b", lead_id=BERT))
    anna, bert = await scorer.told(MqlQualified)
    await scorer.take(merged(ANNA, BERT))
    await scorer.take(rejected(anna, HOUR))
    await scorer.take(activity("demo_requested", NOON + 2 * HOUR, id="c"))
    assert len(await scorer.qualified()) == 2
    await scorer.take(gave_way(bert, 3 * HOUR))
    assert (await scorer.qualified())[2:] == [(ANNA, 2)]


async def test_a_demo_requested_after_a_rejection_that_scoring_had_not_heard_of_counts_in_the_next_cycle(
    scorer: Scorer,
) -> None:
    await scorer.take(activity("demo_requested", id="1"))
    await scorer.take(activity("demo_requested", NOON + 2 * HOUR, id="2"))
    (first,) = await scorer.told(MqlQualified)
    answer = received(rejected(first, HOUR), 100)
    await scorer.settle([answer, answer])
    await scorer.settle([answer])
    _, second = await scorer.told(MqlQualified)
    assert (second.cycle, second.raised_hand, second.qualified_at) == (2, True, NOON + 2 * HOUR)


async def test_a_rejection_of_an_old_mql_ends_no_later_cycle(scorer: Scorer) -> None:
    await scorer.take(activity("demo_requested", id="1"))
    (first,) = await scorer.told(MqlQualified)
    await scorer.take(rejected(first, HOUR))
    await scorer.take(activity("demo_requested", NOON + 2 * HOUR, id="2"))
    await scorer.take(rejected(first, 3 * HOUR))
    await scorer.take(activity("demo_requested", NOON + 4 * HOUR, id="3"))
    assert await scorer.qualified() == [(ANNA, 1), (ANNA, 2)]


async def test_activity_without_an_agreement_is_kept_and_scored_once_there_is_one(databases: Databases) -> None:
    scorer = Scorer(databases.open("scoring"))
    await scorer.take(activity("email_clicked", id="1", agreement_version=None))
    assert await scorer.refold() == 0
    assert await scorer.told(LeadScored) == []
    await scorer.publish()
    assert await scorer.refold() == 1
    assert (await scorer.last_score(ANNA)).score == 3.33
    assert await scorer.refold() == 0


async def test_a_lead_of_whom_too_much_was_told_still_becomes_an_mql(databases: Databases) -> None:
    scorer = Scorer(databases.open("scoring"))
    for part in range(6):
        told = {f"a{part}_{number}": "x" * 600 for number in range(98)}
        await scorer.take(activity("form", id=f"fat{part}", attributes=told, agreement_version=None))
    await scorer.take(a_good_company(id="company", agreement_version=None))
    await scorer.take(activity("demo_requested", NOON + HOUR, id="demo", agreement_version=None))
    content = AGREEMENT.replace("qualify_max_age: P2D", "qualify_max_age: P9999D")
    await scorer.publish(1, content)
    assert await scorer.refold() == 1
    (mql,) = await scorer.told(MqlQualified)
    assert mql.attributes == {"company_size": 500}


async def test_a_new_version_rescores_a_lead_at_its_next_activity_or_in_the_background(scorer: Scorer) -> None:
    clicks = [activity("email_clicked", id=name, lead_id=lead) for name, lead in (("1", ANNA), ("2", BERT))]
    await scorer.take(*clicks)
    await scorer.publish(2, AGREEMENT.replace("points: 3.33", "points: 4"))
    await scorer.take(activity("email_clicked", id="3", agreement_version=2))
    assert (await scorer.last_score(ANNA)).score == 8
    assert await scorer.refold() == 1
    score = await scorer.last_score(BERT)
    assert (score.score, score.version, score.agreement_version) == (4, 2, 2)
    await scorer.take(activity("email_clicked", id="4", agreement_version=1))
    assert (await scorer.last_score(ANNA)).agreement_version == 2


async def test_a_version_that_is_not_here_yet_is_waited_for(scorer: Scorer) -> None:
    with pytest.raises(RetryLater, match="version 7"):
        await scorer.take(activity(id="1", agreement_version=7))


async def test_a_score_that_does_not_change_is_not_told_again(scorer: Scorer) -> None:
    await scorer.take(activity("email_clicked", id="1"))
    await scorer.take(activity("unknown", id="2"))
    assert len(await scorer.told(LeadScored)) == 1


async def test_the_check_finds_a_score_that_no_activity_explains(scorer: Scorer) -> None:
    await scorer.take(*a_hot_life(), merged(VISITOR, ANNA, weak=True), merged(BERT, ANNA))
    await scorer.take(*a_hot_life(VISITOR, "v"), *a_hot_life(CARL, "c"))
    assert await scorer.database.read(checks) == []
    tampered = sql("UPDATE leads SET last_received_at = :at WHERE lead_id = :lead_id")
    lost = sql("DELETE FROM activities WHERE activity_id = 'webinar'")
    await scorer.database.run(lambda session: session.execute(lost))
    found = await scorer.database.read(checks)
    assert [(finding.invariant, finding.subject) for finding in found] == [("I4", ANNA)]
    await scorer.database.run(lambda session: session.execute(tampered, lead_id=CARL, at=NOON + 90 * DAY))
    assert {finding.subject for finding in await scorer.database.read(checks)} == {ANNA, CARL}


async def test_batches_of_several_processes_leave_what_one_would_have(databases: Databases) -> None:
    """Lanes of one person's two ids, fed at once, with the merges of both; every conflict runs a batch again."""
    ids = [ANNA, BERT, CARL, VISITOR]
    scorers = [Scorer(databases.open("scoring")) for _ in range(3)]
    await scorers[0].publish()
    batches: list[list[Event]] = [
        [activity("email_clicked", NOON + timedelta(minutes=n), id=f"{lane}-{n}", lead_id=ids[(lane + n) % 4])]
        + ([merged(CARL, BERT), merged(VISITOR, CARL)] if n == 3 else [merged(ANNA, CARL)] if n == 5 else [])
        for lane in range(3)
        for n in range(8)
    ]
    async with asyncio.TaskGroup() as group:
        for place, batch in enumerate(batches):
            group.create_task(scorers[place % 3].take(*batch))
    assert list(await scorers[0].scores()) == [ANNA]
    assert len(await scorers[0].told(LeadMerged)) == 3
    assert await scorers[0].database.read(checks) == []
