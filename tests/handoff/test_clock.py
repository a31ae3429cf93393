"""Which clocks run, when they speak, and what meets them."""

from __future__ import annotations

from datetime import datetime

import pytest

from services.handoff.clock import Clock, ClockState, Limit, Milestone, Policy, Position, aligned, met, woken
from services.handoff.lifecycle import State
from shared.worktime import Calendar
from tests.handoff.terms import NOON, minutes, terms

POLICY = terms().policy
OFFICE = Calendar(POLICY.calendar.zone, (((9 * 3600, 17 * 3600),),) * 5 + ((), ()))


def position(state: State, *, owner: str | None = "ana", assigned_at: datetime | None = NOON) -> Position:
    return Position("handoff_1", 1, state, owner, NOON, assigned_at)


def clocks_of(state: State, *before: Clock, now: datetime = NOON) -> dict[Milestone, Clock]:
    clocks, _ = aligned(POLICY, position(state), before, now)
    return {clock.milestone: clock for clock in clocks}


def test_an_assignment_starts_the_reps_clock_and_the_mql_started_the_leads() -> None:
    clocks = clocks_of(State.ASSIGNED)
    assert {(clock.milestone, clock.subject, clock.due_at - NOON) for clock in clocks.values()} == {
        ("accept", "ana", minutes(5)),
        ("first_touch", "lead", minutes(10)),
    }


def test_the_leads_clock_does_not_start_again_with_the_next_owner() -> None:
    first = clocks_of(State.ASSIGNED)
    later = Position("handoff_1", 3, State.ASSIGNED, "bo", NOON, NOON + minutes(4))
    clocks, _ = aligned(POLICY, later, first.values(), NOON + minutes(4))
    running = {(clock.milestone, clock.subject): clock.started_at for clock in clocks if clock.is_open}
    assert running == {("accept", "bo"): NOON + minutes(4), ("first_touch", "lead"): NOON}


def test_a_deadline_counts_working_time_only() -> None:
    policy = Policy("office", "office", OFFICE, (Limit(Milestone.FIRST_TOUCH, 3600.0, "mql"),), warn_at=(50,))
    friday = datetime.fromisoformat("2026-03-06T16:30:00+00:00")
    at = Position("handoff_1", 1, State.ASSIGNED, "ana", friday, friday)
    ((clock,), _) = aligned(policy, at, (), friday)
    assert clock.due_at == datetime.fromisoformat("2026-03-09T09:30:00+00:00")
    assert clock.wake_at == datetime.fromisoformat("2026-03-06T17:00:00+00:00")


def test_each_reminder_is_given_once_and_then_the_deadline_is_waited_for() -> None:
    clock = clocks_of(State.ASSIGNED)[Milestone.FIRST_TOUCH]
    said = []
    for minute in range(12):
        if clock.is_open and clock.wake_at is not None and clock.wake_at <= NOON + minutes(minute):
            clock, told = woken(POLICY, clock, NOON + minutes(minute))
            said += [(each.what, each.clock.warned, minute) for each in told]
    assert said == [("warned", 50, 5), ("warned", 80, 8), ("breached", 80, 10)]


def test_a_worker_that_was_away_gives_the_last_reminder_only() -> None:
    clock, told = woken(POLICY, clocks_of(State.ASSIGNED)[Milestone.FIRST_TOUCH], NOON + minutes(9))
    assert [each.clock.warned for each in told] == [80]
    assert clock.wake_at == clock.due_at


@pytest.mark.parametrize(
    ("at", "told", "state", "late_report"),
    [(9, ["met"], ClockState.MET, False), (11, ["breached", "met"], ClockState.BREACHED, False)],
)
def test_a_milestone_is_met_when_it_happened_not_when_we_heard(
    at: int, told: list[str], state: ClockState, late_report: bool
) -> None:
    clock = clocks_of(State.ASSIGNED)[Milestone.FIRST_TOUCH]
    after, said = met(clock, NOON + minutes(at), NOON + minutes(30))
    assert [each.what for each in said] == told
    assert (after.state, after.met_at, after.late_report) == (state, NOON + minutes(at), late_report)


def test_a_breach_is_corrected_by_a_touch_in_time_even_after_one_that_was_late() -> None:
    clock, _ = woken(POLICY, clocks_of(State.ASSIGNED)[Milestone.FIRST_TOUCH], NOON + minutes(10))
    clock, _ = met(clock, NOON + minutes(15), NOON + minutes(16))
    assert (clock.state, clock.met_at) == (ClockState.BREACHED, NOON + minutes(15))
    clock, told = met(clock, NOON + minutes(7), NOON + minutes(20))
    assert (clock.state, clock.met_at, clock.late_report) == (ClockState.MET, NOON + minutes(7), True)
    assert met(clock, NOON + minutes(6), NOON + minutes(21)) == (clock, ())
    assert len(told) == 1


def test_a_breached_clock_of_the_lead_goes_on_until_the_end_of_the_handoff() -> None:
    breached, _ = woken(POLICY, clocks_of(State.ASSIGNED)[Milestone.FIRST_TOUCH], NOON + minutes(10))
    waiting = clocks_of(State.UNROUTED, breached)[Milestone.FIRST_TOUCH]
    assert waiting.is_awaited
    ended = clocks_of(State.REJECTED, breached, now=NOON + minutes(30))[Milestone.FIRST_TOUCH]
    assert (ended.state, ended.ended_at, ended.met_at) == (ClockState.BREACHED, NOON + minutes(30), None)


def test_an_end_after_the_deadline_records_the_breach_first() -> None:
    open_clock = clocks_of(State.ASSIGNED)[Milestone.FIRST_TOUCH]
    clocks, told = aligned(POLICY, position(State.REJECTED), [open_clock], NOON + minutes(11))
    assert [each.what for each in told] == ["breached"]
    assert clocks[0].state is ClockState.BREACHED
