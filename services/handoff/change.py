"""One change to a handoff: its new state and clocks, the line of its history, and what the other services are told.

Pure: whoever holds the handoff's lock loads it, changes it here, writes it and emits its events (`transitions.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from services.handoff import notices
from services.handoff.case import Case, Change, Handoff, Line, PastOwner, Touch, Why
from services.handoff.clock import LEAD, Clock, Milestone, Told, aligned, met, woken
from services.handoff.lifecycle import Action, IllegalTransition, State, Transition, transition
from services.handoff.recycle import Consequence, consequence, of_loss
from services.handoff.terms import Terms
from shared.agreement import ReasonKind

REASONS: Mapping[Action, ReasonKind] = {Action.REJECT: "reject", Action.RECYCLE: "recycle"}
ENDS_WITH_REASON = frozenset({*REASONS, Action.LOSE})
MEETS: Mapping[Action, Milestone] = {
    Action.ACCEPT: Milestone.ACCEPT,
    Action.REJECT: Milestone.ACCEPT,  # an answer too
    Action.REROUTE: Milestone.ACCEPT,
    Action.TOUCH: Milestone.FIRST_TOUCH,
    Action.QUALIFY: Milestone.NEXT_STEP,
    Action.OPEN_DEAL: Milestone.NEXT_STEP,
}
REASSIGNING = frozenset({Milestone.ACCEPT, Milestone.FIRST_TOUCH})  # whose breach may take the lead from its owner
LOST_BY: Mapping[Action, Why] = {Action.EXPIRE: "had it before", Action.REROUTE: "rejected it"}


def changed(case: Case, change: Change, terms: Terms, now: datetime) -> Case:
    """The case after a change. Raises `IllegalTransition`, and for reasons what `recycle.consequence` raises."""
    before = case.handoff
    row = transition(before.state, change.action)
    follows = _consequence(before, change, terms)
    if follows is not None and follows.is_reroute:
        change = replace(change, action=Action.REROUTE)
        row = transition(before.state, change.action)
    clocks, told = _met(before, change, change.at or now, now)
    after = _after(replace(before, clocks=clocks), change, row, now)
    kept, more = aligned(terms.policy, after.position, clocks, now)
    after = replace(after, clocks=tuple(kept))
    line = _line(before, after, change, row, now)
    said = [*told, *more]
    events = (
        *notices.of_clocks(before, [each for each in said if each.what == "breached"], terms),
        notices.of_transition(before, after, line, follows, ends_cycle=row.ends_cycle),
        *notices.of_clocks(after, [each for each in said if each.what != "breached"], terms),
        *notices.of_nurture(before, after, change.action, follows),
    )
    return Case(after, (*case.lines, line), (*case.events, *events))


def touched(case: Case, touch: Touch, terms: Terms, now: datetime) -> Case:
    """The case after a new touch; unchanged unless an owner did it, and as the agreement defines a touch.

    The owner's touch implies acceptance. One of a former owner, or after the end, corrects the books and no more.
    """
    handoff = case.handoff
    at = min(touch.occurred_at, touch.received_at)
    performer = terms.performer(touch.performer)
    if at < handoff.qualified_at or touch.kind not in terms.touch_kinds or not handoff.was_owned_by(performer, at):
        return case
    change = Change(Action.TOUCH, performer, touch.touch_id, at=at, touch_id=touch.touch_id)
    if not handoff.is_open:
        clocks, told = _met(handoff, change, at, now)
        handoff = replace(handoff, clocks=clocks)
        return replace(case, handoff=handoff, events=(*case.events, *notices.of_clocks(handoff, told, terms)))
    if handoff.state is State.ASSIGNED and performer == handoff.owner:
        case = changed(case, replace(change, action=Action.ACCEPT), terms, now)
    return changed(case, change, terms, now)


def all_touched(case: Case, touches: Iterable[Touch], terms: Terms, now: datetime) -> Case:
    """Touches in the order in which they happened."""
    for touch in sorted(touches, key=lambda touch: (touch.occurred_at, touch.touch_id)):
        case = touched(case, touch, terms, now)
    return case


def deal_moved(case: Case, change: Change, terms: Terms, now: datetime) -> Case:
    """The case after a deal reached a stage; out of order, or after the end, it changes nothing."""
    try:
        return changed(case, change, terms, now)
    except IllegalTransition:
        return case


def rung(case: Case, terms: Terms, now: datetime) -> Case:
    """What the due clocks of a handoff cause: reminders, breaches, and a new routing asked for."""
    looked = [woken(terms.policy, clock, now) if clock.is_open else (clock, ()) for clock in case.handoff.clocks]
    told = [each for _, said in looked for each in said]
    handoff = replace(case.handoff, clocks=tuple(clock for clock, _ in looked))
    case = replace(case, handoff=handoff, events=(*case.events, *notices.of_clocks(handoff, told, terms)))
    late = next((each.clock for each in told if each.what == "breached" and each.clock.milestone in REASSIGNING), None)
    if late is None or not _may_expire(handoff, terms):
        return case
    return changed(case, Change(Action.EXPIRE, "baton", late.clock_id, reason=late.milestone), terms, now)


def _may_expire(handoff: Handoff, terms: Terms) -> bool:
    return (
        terms.policy.reassigns
        and handoff.state in (State.ASSIGNED, State.ACCEPTED)
        and handoff.owner != terms.last_resort
    )


def _consequence(handoff: Handoff, change: Change, terms: Terms) -> Consequence | None:
    """What the change's reason leads to, where it needs one."""
    if change.action is Action.LOSE:
        return of_loss(terms.agreement, change.reason)
    if (kind := REASONS.get(change.action)) is None:
        return None
    return consequence(terms.agreement, kind, change.reason, note=change.note, attempts=handoff.attempts)


def _met(handoff: Handoff, change: Change, at: datetime, now: datetime) -> tuple[tuple[Clock, ...], list[Told]]:
    """The clocks with those met that the change answers."""
    looked = [met(clock, at, now) if _answers(handoff, clock, change, at) else (clock, ()) for clock in handoff.clocks]
    return tuple(clock for clock, _ in looked), [each for _, said in looked for each in said]


def _answers(handoff: Handoff, clock: Clock, change: Change, at: datetime) -> bool:
    """Whether the change is what a clock waits for. A clock of somebody else's time is not answered any more.

    The first touch may be anybody's who had the lead then; what comes after it is the owner's next step.
    """
    if clock.milestone is Milestone.NEXT_STEP and change.action is Action.TOUCH:
        return clock.is_awaited and clock.subject == change.actor and clock.started_at < at
    if clock.milestone is not MEETS.get(change.action):
        return False
    return clock.is_awaited or (clock.subject == LEAD and clock.milestone is Milestone.FIRST_TOUCH)


def _after(handoff: Handoff, change: Change, row: Transition, now: datetime) -> Handoff:
    """The row after the change, its clocks not yet aligned."""
    after = replace(
        handoff,
        version=handoff.version + 1,
        state=row.target or handoff.state,
        reason=change.reason if change.action in ENDS_WITH_REASON else handoff.reason,
        attempts=handoff.attempts + (change.action is Action.TOUCH),
    )
    match change.action:
        case Action.ASSIGN | Action.REASSIGN:
            return replace(
                after,
                owner=change.owner,
                pool=change.pool,
                assigned_at=now,
                reassigns=after.reassigns + (change.action is Action.REASSIGN),
                route_at=None,
                route_cause=None,
            )
        case Action.UNROUTE:
            return replace(after, pool=change.pool, route_at=change.route_at, route_cause=change.action)
        case Action.EXPIRE | Action.REROUTE:
            return _without_owner(after, change, now)
    if after.is_open or not handoff.is_open:
        return after
    return replace(after, ended_at=now, route_at=None, route_cause=None)


def _without_owner(handoff: Handoff, change: Change, now: datetime) -> Handoff:
    """The handoff as it waits for the router, who remembers why this owner does not get it again."""
    assert handoff.owner is not None, "only an owner loses a handoff"
    past = PastOwner(handoff.owner, now, LOST_BY[change.action])
    return replace(
        handoff,
        owner=None,
        assigned_at=None,
        past_owners=(*handoff.past_owners, past),
        route_at=now,
        route_cause=change.action,
    )


def _line(before: Handoff, after: Handoff, change: Change, row: Transition, now: datetime) -> Line:
    assert after.state is not None, "every change leads to a state"
    return Line(
        handoff_id=after.handoff_id,
        version=after.version,
        from_state=before.state,
        to_state=after.state,
        type=row.event,
        actor=change.actor,
        cause=change.cause,
        happened_at=change.at or now,
        recorded_at=now,
        owner=after.owner,
        reason=change.reason,
        note=change.note,
        touch_id=change.touch_id,
        decision=change.decision,
    )
