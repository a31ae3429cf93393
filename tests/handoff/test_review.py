"""What people of sales do with a handoff (services/handoff/review.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from services.handoff.case import Handoff
from services.handoff.clock import ClockState, Milestone
from services.handoff.lifecycle import State
from services.handoff.review import Verb, Word, review
from services.handoff.store import handoffs
from services.handoff.watch import RING, ROUTE, carry_out
from shared.db import Database
from shared.events import HandoffRejected, NurtureRequested, SlaBreached, SlaMet
from shared.web import Problem
from tests.handoff.support import ALWAYS_OPEN, emitted, emitted_types, found, handed_over, publish
from tests.support import Databases

pytestmark = pytest.mark.slow

TO_ACCEPT = timedelta(minutes=5)  # what the agreement gives the owner of a hot lead
LATE = TO_ACCEPT + timedelta(minutes=1)
ROUNDS = 20


@pytest.fixture
async def database(databases: Databases) -> Database:
    database = databases.open("handoff")
    await publish(database, ALWAYS_OPEN)
    return database


async def say(database: Database, handoff: Handoff, verb: Verb, word: Word) -> Handoff:
    """Said about the handoff as given."""
    return await database.run(
        lambda session: review(session, handoff.handoff_id, verb, word, expected=handoff.version, cause="api:tests")
    )


async def refused(attempt: Awaitable[Handoff]) -> tuple[int, str, dict[str, object]]:
    with pytest.raises(Problem) as problem:
        await attempt
    return problem.value.status, str(problem.value.body["type"]), problem.value.body


def owner(handoff: Handoff) -> str:
    assert handoff.owner is not None
    return handoff.owner


def somebody_else(handoff: Handoff) -> str:
    return next(rep for rep in ("bo", "chi") if rep != handoff.owner)


def clock_state(handoff: Handoff, milestone: Milestone) -> ClockState:
    return next(clock.state for clock in handoff.clocks if clock.milestone is milestone)


async def test_the_owner_accepts_and_his_clock_is_met(database: Database) -> None:
    handoff = await handed_over(database)
    after = await say(database, handoff, "accept", Word(by=owner(handoff)))
    assert (after.state, after.version) == (State.ACCEPTED, handoff.version + 1)
    assert clock_state(after, Milestone.ACCEPT) is ClockState.MET
    assert await found(database, handoff.handoff_id) == after
    assert (await emitted_types(database))[-2:] == ["handoff.accepted", "sla.met"]


async def test_a_rep_may_be_named_by_email_or_crm_id(database: Database) -> None:
    handoff = await handed_over(database)
    after = await say(database, handoff, "accept", Word(by=f"{owner(handoff)}@ACME.example"))
    assert after.state is State.ACCEPTED


async def test_nobody_else_speaks_for_the_owner(database: Database) -> None:
    handoff = await handed_over(database)
    said: dict[Verb, Word] = {
        "accept": Word(by=somebody_else(handoff)),
        "reject": Word(by=somebody_else(handoff), reason="not_a_fit"),
        "touch": Word(by=somebody_else(handoff), kind="call_logged"),
    }
    for verb, word in said.items():
        assert (await refused(say(database, handoff, verb, word)))[:2] == (403, "/problems/not-owner")
    assert await found(database, handoff.handoff_id) == handoff


async def test_the_head_of_sales_may_answer_in_the_owners_place_but_not_touch(database: Database) -> None:
    handoff = await handed_over(database)
    touch = Word(by="sam@acme.example", kind="call_logged")
    assert (await refused(say(database, handoff, "touch", touch)))[:2] == (403, "/problems/not-owner")
    after = await say(database, handoff, "accept", Word(by="sam@acme.example"))
    assert (after.state, after.owner) == (State.ACCEPTED, handoff.owner)
    lines = await database.read(lambda session: handoffs.history(session, handoff.handoff_id))
    assert lines[-1].actor == "sam@acme.example"


async def test_a_name_nobody_has_is_answered_with_the_known_ones_and_the_nearest(database: Database) -> None:
    handoff = await handed_over(database)
    status, kind, body = await refused(say(database, handoff, "accept", Word(by="anna")))
    assert (status, kind) == (422, "/problems/unknown-rep")
    assert (body["nearest"], body["allowed"]) == ("ana", ["ana", "bo", "chi", "dee"])


async def test_a_rejection_returns_the_lead_to_nurture_with_its_reason(database: Database) -> None:
    handoff = await handed_over(database)
    after = await say(database, handoff, "reject", Word(by=owner(handoff), reason="not_a_fit"))
    assert (after.state, after.reason, after.wake_at) == (State.REJECTED, "not_a_fit", None)
    events = await emitted(database)
    (rejected,) = [event for event in events if isinstance(event, HandoffRejected)]
    (nurture,) = [event for event in events if isinstance(event, NurtureRequested)]
    assert (rejected.ends_cycle, rejected.reason_class, rejected.ended_at) == (True, "fit", after.ended_at)
    assert (nurture.track, nurture.reason) == ("default", "not_a_fit")


async def test_a_rejection_for_logistics_goes_to_another_rep(database: Database) -> None:
    handoff = await handed_over(database)
    after = await say(database, handoff, "reject", Word(by=owner(handoff), reason="wrong_territory"))
    assert (after.state, after.owner) == (State.UNROUTED, None)
    await carry_out(database, ROUTE)
    again = await found(database, handoff.handoff_id)
    assert again.state is State.ASSIGNED
    assert again.owner != handoff.owner


async def test_a_wrong_reason_is_answered_with_the_legal_ones_and_the_nearest(database: Database) -> None:
    handoff = await handed_over(database)
    word = Word(by=owner(handoff), reason="not_fit")
    status, kind, body = await refused(say(database, handoff, "reject", word))
    assert (status, kind, body["nearest"]) == (422, "/problems/unknown-reason", "not_a_fit")
    assert body["allowed"] == ("wrong_territory", "conflict_of_interest", "not_a_fit", "bad_data", "other")
    accepted = await say(database, handoff, "accept", Word(by=owner(handoff)))
    _, kind, body = await refused(say(database, accepted, "recycle", Word(by=owner(handoff), reason="not_a_fit")))
    assert (kind, body["allowed"]) == ("/problems/unknown-reason", ("no_budget", "no_project", "unreachable"))


async def test_a_reason_that_says_nothing_needs_a_note(database: Database) -> None:
    handoff = await handed_over(database)
    silent = Word(by=owner(handoff), reason="other", note="  ")
    assert (await refused(say(database, handoff, "reject", silent)))[:2] == (422, "/problems/note-required")
    after = await say(database, handoff, "reject", Word(by=owner(handoff), reason="other", note="a competitor"))
    assert after.state is State.REJECTED


async def test_unreachable_is_believed_after_five_touches(database: Database) -> None:
    handoff = await handed_over(database)
    for _ in range(4):
        handoff = await say(database, handoff, "touch", Word(by=owner(handoff), kind="call_logged"))
    word = Word(by=owner(handoff), reason="unreachable")
    status, kind, body = await refused(say(database, handoff, "recycle", word))
    assert (status, kind, body["needed"], body["attempts"]) == (422, "/problems/attempts-required", 5, 4)
    handoff = await say(database, handoff, "touch", Word(by=owner(handoff), kind="email_sent"))
    assert (await say(database, handoff, "recycle", word)).state is State.RECYCLED


async def test_what_the_state_does_not_allow_is_answered_with_what_it_does(database: Database) -> None:
    handoff = await handed_over(database)
    early = Word(by=owner(handoff), reason="no_budget")
    status, kind, body = await refused(say(database, handoff, "recycle", early))
    assert (status, kind, body["state"]) == (409, "/problems/illegal-transition", State.ASSIGNED)
    assert body["allowed"] == ["accept", "reject", "touch"]
    ended = await say(database, handoff, "reject", Word(by=owner(handoff), reason="not_a_fit"))
    assert (await refused(say(database, ended, "accept", Word(by=owner(handoff)))))[2]["allowed"] == []


async def test_the_owners_touch_implies_acceptance_and_meets_the_leads_clock(database: Database) -> None:
    handoff = await handed_over(database)
    after = await say(database, handoff, "touch", Word(by=owner(handoff), kind="call_logged"))
    assert after.state is State.ACCEPTED
    assert clock_state(after, Milestone.ACCEPT) is ClockState.MET
    assert clock_state(after, Milestone.FIRST_TOUCH) is ClockState.MET
    assert [event for event in await emitted_types(database) if event.startswith("handoff.")] == [
        "handoff.assigned",
        "handoff.accepted",
        "handoff.touched",
    ]


async def test_a_touch_in_the_future_happened_now(database: Database) -> None:
    handoff = await handed_over(database)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    after = await say(database, handoff, "touch", Word(by=owner(handoff), kind="call_logged", occurred_at=tomorrow))
    met_at = next(clock.met_at for clock in after.clocks if clock.milestone is Milestone.FIRST_TOUCH)
    assert met_at is not None
    assert met_at < tomorrow


async def test_a_status_flip_is_no_touch(database: Database) -> None:
    handoff = await handed_over(database)
    word = Word(by=owner(handoff), kind="status_changed")
    status, kind, body = await refused(say(database, handoff, "touch", word))
    assert (status, kind) == (422, "/problems/unknown-touch-kind")
    assert body["allowed"] == ("call_logged", "email_sent", "meeting_held")


async def test_who_has_read_an_older_version_is_told_so(database: Database) -> None:
    handoff = await handed_over(database)
    await say(database, handoff, "touch", Word(by=owner(handoff), kind="call_logged"))
    status, kind, body = await refused(say(database, handoff, "accept", Word(by=owner(handoff))))
    assert (status, kind, body["version"]) == (412, "/problems/version-changed", handoff.version + 2)


async def test_a_handoff_nobody_opened_is_not_found(database: Database) -> None:
    with pytest.raises(Problem) as problem:
        await database.run(
            lambda session: review(session, "handoff_0", "accept", Word(by="ana"), expected=1, cause="api:tests")
        )
    assert problem.value.status == 404


async def test_accepting_too_late_records_the_breach_that_no_worker_saw(database: Database) -> None:
    handoff = await handed_over(database, since=LATE, assigned=LATE)
    after = await say(database, handoff, "accept", Word(by=owner(handoff)))
    assert (after.state, after.owner) == (State.ACCEPTED, handoff.owner)
    assert clock_state(after, Milestone.ACCEPT) is ClockState.BREACHED
    events = await emitted(database)
    (breached,) = [event for event in events if isinstance(event, SlaBreached)]
    (met,) = [event for event in events if isinstance(event, SlaMet)]
    assert (breached.milestone, met.clock_id) == ("accept", breached.clock_id)
    assert met.version == breached.version + 1
    await carry_out(database, RING)
    assert (await emitted_types(database)).count("sla.breached") == 1


async def test_a_worker_that_was_first_takes_the_lead_from_who_is_late(database: Database) -> None:
    handoff = await handed_over(database, since=LATE, assigned=LATE)
    await carry_out(database, RING)
    assert (await refused(say(database, handoff, "accept", Word(by=owner(handoff)))))[0] == 412
    current = await found(database, handoff.handoff_id)
    assert current.state is State.UNROUTED
    assert (await refused(say(database, current, "accept", Word(by=owner(handoff)))))[0] == 409


async def outcomes(attempts: list[Awaitable[Handoff]]) -> tuple[list[Handoff], list[int]]:
    """What was done, and the statuses of what was refused."""
    both = await asyncio.gather(*attempts, return_exceptions=True)
    for each in both:
        if isinstance(each, BaseException) and not isinstance(each, Problem):
            raise each
    return [each for each in both if isinstance(each, Handoff)], [
        each.status for each in both if isinstance(each, Problem)
    ]


@pytest.mark.parametrize(
    "against",
    [
        pytest.param(lambda handoff: ("accept", Word(by=owner(handoff))), id="accept"),
        pytest.param(lambda handoff: ("reject", Word(by=owner(handoff), reason="not_a_fit")), id="reject"),
        pytest.param(lambda handoff: ("touch", Word(by=owner(handoff), kind="call_logged")), id="touch"),
    ],
)
async def test_of_two_at_once_one_wins_by_version(
    database: Database, against: Callable[[Handoff], tuple[Verb, Word]]
) -> None:
    for round in range(ROUNDS):
        handoff = await handed_over(database, f"lead_{round}")
        verb, word = against(handoff)
        done, statuses = await outcomes(
            [say(database, handoff, "accept", Word(by=owner(handoff))), say(database, handoff, verb, word)]
        )
        assert len(done) == 1
        assert statuses == [412]
        assert await found(database, handoff.handoff_id) == done[0]


async def test_an_accept_at_the_deadline_is_either_accepted_or_taken_away(database: Database) -> None:
    for round in range(5):
        almost = TO_ACCEPT - timedelta(milliseconds=100)
        handoff = await handed_over(database, f"lead_{round}", since=almost, assigned=almost)
        due_at = min(clock.due_at for clock in handoff.clocks)
        await asyncio.sleep(max(0.0, (due_at - datetime.now(UTC)).total_seconds()))
        (done, statuses), _ = await asyncio.gather(
            outcomes([say(database, handoff, "accept", Word(by=owner(handoff)))]), carry_out(database, RING)
        )
        after = await found(database, handoff.handoff_id)
        is_accepted = after.state is State.ACCEPTED
        assert (len(done), statuses) == ((1, []) if is_accepted else (0, [412]))
        assert is_accepted or after.state is State.UNROUTED
