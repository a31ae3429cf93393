"""The table of transitions, and changes as walks along it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.handoff.case import Case, Change
from services.handoff.change import changed, deal_moved, rung, touched
from services.handoff.clock import implied_open_milestones
from services.handoff.lifecycle import OPEN, TABLE, Action, IllegalTransition, State, allowed_actions, transition
from services.handoff.recycle import ReasonRefused
from services.handoff.route import routed
from shared.events import HandoffEvent, NurtureRequested, NurtureResumed, NurtureSuspended, SlaBreached, SlaMet
from shared.topics import topic
from tests.handoff.terms import NOON, minutes, opened, terms, touch


def test_every_transition_has_an_event_type_and_every_event_type_a_transition() -> None:
    types = {name for name in topic("baton.handoffs.v1").types if name.startswith("handoff.")}
    assert {row.event for row in TABLE.values()} == types


def test_nothing_leads_out_of_an_end_except_the_answer_to_a_retraction() -> None:
    ends = set(State) - set(OPEN)
    for action, row in TABLE.items():
        if row.sources & ends:
            assert (action, row.target) == (Action.REFUSE_RETRACTION, None)


def test_exactly_the_ends_but_a_merge_end_the_cycle() -> None:
    ending = {row.target for row in TABLE.values() if row.ends_cycle}
    assert ending == set(State) - set(OPEN) - {State.MERGED}


def test_every_state_can_be_reached() -> None:
    reached: set[State | None] = {None}
    for _ in State:
        reached |= {row.target for row in TABLE.values() if row.target and row.sources & reached}
    assert reached == {None, *State}


def test_an_illegal_action_says_what_the_rep_may_do_instead() -> None:
    with pytest.raises(IllegalTransition) as refused:
        transition(State.ASSIGNED, Action.RECYCLE)
    assert refused.value.allowed == (Action.ACCEPT, Action.TOUCH, Action.REJECT)
    assert "allowed: accept, touch, reject" in str(refused.value)
    assert allowed_actions(State.REJECTED) == ()


def assigned() -> Case:
    case, _ = routed(opened(), terms(), {}, NOON)
    assert case.handoff.owner == "ana"
    return case


def test_an_mql_is_assigned_and_marketing_told_to_leave_it_alone() -> None:
    case = assigned()
    assert [event.type for event in case.events] == ["handoff.assigned", "nurture.suspended"]
    assert case.handoff.version == 1


def test_the_owners_touch_implies_acceptance_and_meets_both_clocks() -> None:
    case = touched(assigned(), touch("51", NOON + minutes(2)), terms(), NOON + minutes(3))
    assert case.handoff.state is State.ACCEPTED
    types = [event.type for event in case.events[2:]]
    assert types == ["handoff.accepted", "sla.met", "handoff.touched", "sla.met"]
    met = {clock.milestone: clock.met_at for clock in case.handoff.clocks}
    assert met == {"accept": NOON + minutes(2), "first_touch": NOON + minutes(2), "next_step": None}


def test_a_strangers_touch_and_a_kind_that_is_none_change_nothing() -> None:
    case = assigned()
    assert touched(case, touch("bo", NOON + minutes(2)), terms(), NOON + minutes(3)) == case
    assert touched(case, touch("ana", NOON + minutes(2), kind="status_flipped"), terms(), NOON + minutes(3)) == case
    assert touched(case, touch("ana", NOON - minutes(2)), terms(), NOON + minutes(3)) == case


def test_an_accept_after_the_deadline_records_the_breach_first_and_takes_no_lead_back() -> None:
    case = changed(assigned(), Change(Action.ACCEPT, "ana", "api"), terms(), NOON + minutes(6))
    assert [event.type for event in case.events[2:]] == ["sla.breached", "handoff.accepted", "sla.met"]
    assert case.handoff.owner == "ana"
    again = rung(case, terms(), NOON + minutes(6))
    assert again.handoff.owner == "ana"


def test_a_touch_in_time_that_is_reported_after_the_breach_corrects_the_books_and_takes_no_lead_back() -> None:
    lost = rung(assigned(), terms(), NOON + minutes(11))
    case, _ = routed(lost, terms(), {}, NOON + minutes(12))
    assert (case.handoff.owner, case.handoff.past_owners[0].owner) == ("bo", "ana")
    told = touched(case, touch("ana", NOON + minutes(9)), terms(), NOON + minutes(20))
    (met,) = [event for event in told.events if isinstance(event, SlaMet)]
    assert (met.milestone, met.late_report, met.elapsed_seconds) == ("first_touch", True, 540)
    assert (told.handoff.owner, told.handoff.state) == ("bo", State.ASSIGNED)


def test_a_late_report_corrects_the_books_even_after_the_end() -> None:
    case, _ = routed(rung(assigned(), terms(), NOON + minutes(11)), terms(), {}, NOON + minutes(12))
    case = changed(case, Change(Action.REJECT, "bo", "api", reason="not_a_fit"), terms(), NOON + minutes(13))
    late = touched(case, touch("ana", NOON + minutes(15)), terms(), NOON + minutes(20))
    assert late == case
    told = touched(case, touch("ana", NOON + minutes(9)), terms(), NOON + minutes(20))
    assert [event.type for event in told.events[len(case.events) :]] == ["sla.met"]
    assert (told.handoff.state, told.handoff.version) == (State.REJECTED, case.handoff.version)


def test_a_breach_tells_the_manager_and_asks_for_another_owner() -> None:
    case = rung(assigned(), terms(), NOON + minutes(5))
    breached, warned, expired = case.events[2:]
    assert isinstance(breached, SlaBreached)
    assert (breached.milestone, breached.owner, breached.manager) == ("accept", "ana", "sam@acme.example")
    assert warned.type == "sla.warned"  # half of the first touch's ten minutes
    assert isinstance(expired, HandoffEvent)
    assert (expired.type, expired.state, expired.previous_owner) == ("handoff.expired", "unrouted", "ana")
    assert case.handoff.route_at == NOON + minutes(5)


def test_a_rejection_ends_the_cycle_and_asks_for_nurture() -> None:
    case = changed(assigned(), Change(Action.REJECT, "ana", "api", reason="not_a_fit"), terms(), NOON + minutes(1))
    rejected, met, nurture = case.events[2:]
    assert isinstance(rejected, HandoffEvent)
    assert (rejected.ends_cycle, rejected.ended_at, rejected.reason_class) == (True, NOON + minutes(1), "fit")
    assert isinstance(met, SlaMet)
    assert isinstance(nurture, NurtureRequested)
    assert (nurture.track, nurture.wake_at) == ("default", None)
    assert not [clock for clock in case.handoff.clocks if clock.is_open]


def test_a_logistics_reason_is_no_end_but_a_new_routing() -> None:
    change = Change(Action.REJECT, "ana", "api", reason="wrong_territory")
    case = changed(assigned(), change, terms(), NOON + minutes(1))
    (rejected,) = [event for event in case.events if event.type == "handoff.rejected"]
    assert isinstance(rejected, HandoffEvent)
    assert (rejected.state, rejected.ends_cycle, rejected.reason) == ("unrouted", False, "wrong_territory")
    again, _ = routed(case, terms(), {}, NOON + minutes(2), case.lines[0].decision)
    assert again.handoff.owner == "bo"
    assert again.events[-1].type == "handoff.reassigned"


def test_a_recycled_lead_wakes_when_its_reason_says() -> None:
    case = touched(assigned(), touch("ana", NOON + minutes(2)), terms(), NOON + minutes(2))
    case = changed(case, Change(Action.RECYCLE, "ana", "api", reason="no_budget"), terms(), NOON + minutes(60))
    nurture = case.events[-1]
    assert isinstance(nurture, NurtureRequested)
    assert nurture.wake_at == NOON + minutes(60) + minutes(90 * 24 * 60)


ACTIONS = st.sampled_from(
    ["ring", "route", "accept", "touch", "late touch", "reject", "reroute", "recycle", "won", "sql"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(ACTIONS, st.floats(0.1, 8)), max_size=12), st.sampled_from(["hot", "warm"]))
def test_whatever_happens_the_history_is_a_walk_and_the_clocks_are_those_implied(
    steps: list[tuple[str, float]], bucket: str
) -> None:
    its, now = terms(bucket=bucket), NOON
    case, _ = routed(opened(bucket=bucket), its, {}, now)
    for step, wait in steps:
        now += minutes(wait)
        case = _stepped(case, step, now, bucket)
        handoff = case.handoff
        assert {(clock.milestone, clock.subject) for clock in handoff.clocks if clock.is_open} == (
            implied_open_milestones(its.policy, handoff.position, handoff.clocks)
        )
        assert all(clock.due_at <= clock.breached_at for clock in handoff.clocks if clock.breached_at)
    walked = [(line.from_state, line.to_state) for line in case.lines]
    assert [came_to for _, came_to in walked[:-1]] == [went_from for went_from, _ in walked[1:]]
    assert [line.version for line in case.lines] == list(range(1, len(walked) + 1))
    _assert_lock_is_lifted_once(case)


def _stepped(case: Case, step: str, now: object, bucket: str) -> Case:
    assert isinstance(now, type(NOON))
    its, owner = terms(bucket=bucket), case.handoff.owner or "nobody"
    reasons = {"reject": (Action.REJECT, "not_a_fit"), "reroute": (Action.REJECT, "wrong_territory")}
    try:
        match step:
            case "ring":
                return rung(case, its, now)
            case "route":
                is_waiting = case.handoff.route_at is not None and case.handoff.route_at <= now
                return routed(case, its, {}, now)[0] if is_waiting else case
            case "touch":
                return touched(case, touch(owner, now), its, now)
            case "late touch":
                return touched(case, touch("ana", NOON + minutes(1), heard_at=now), its, now)
            case "won" | "sql":
                action = Action.WIN if step == "won" else Action.QUALIFY
                return deal_moved(case, Change(action, "hubspot", "deal"), its, now)
            case "accept" | "recycle":
                return changed(case, Change(Action(step), owner, "api", reason="no_budget"), its, now)
            case _:
                action, reason = reasons[step]
                return changed(case, Change(action, owner, "api", reason=reason), its, now)
    except (IllegalTransition, ReasonRefused):
        return case


def _assert_lock_is_lifted_once(case: Case) -> None:
    suspended = [event for event in case.events if isinstance(event, NurtureSuspended)]
    lifted = [event for event in case.events if isinstance(event, NurtureRequested | NurtureResumed)]
    assert (len(suspended), len(lifted)) == (1, 0 if case.handoff.is_open else 1)
