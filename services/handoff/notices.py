"""What the other services are told of a change: the transition, its clocks, and marketing's automation."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TypedDict, cast

from msgspec import structs

from services.handoff.case import Handoff, Line
from services.handoff.clock import Told, elapsed_seconds
from services.handoff.lifecycle import Action
from services.handoff.recycle import Consequence
from services.handoff.terms import Terms
from shared.events import (
    EVENTS,
    Event,
    HandoffEvent,
    HandoffUnrouted,
    NurtureRequested,
    NurtureResumed,
    NurtureSuspended,
    SlaBreached,
    SlaEvent,
    SlaMet,
    SlaWarned,
)

SLA_EVENTS: dict[str, type[SlaEvent]] = {"warned": SlaWarned, "breached": SlaBreached, "met": SlaMet}
LIFTS_THE_LOCK = frozenset({Action.REJECT, Action.RECYCLE, Action.WIN, Action.LOSE, Action.RETRACT})


def of_transition(
    before: Handoff, after: Handoff, line: Line, follows: Consequence | None, *, ends_cycle: bool
) -> HandoffEvent:
    """The event of one line of the history; a state's last event says whether the lead may qualify again."""
    event = cast(type[HandoffEvent], EVENTS[line.type])(
        handoff_id=after.handoff_id,
        mql_id=after.mql_id,
        opened_for=after.opened_for,
        lead_id=after.lead_id,
        product=after.product,
        motion=after.motion,
        cycle=after.cycle,
        agreement_version=after.agreement_version,
        version=after.version,
        state=line.to_state,
        at=line.happened_at,
        actor=line.actor,
        cause=line.cause,
        from_state=line.from_state,
        owner=after.owner,
        previous_owner=_previous_owner(before, after),
        pool=after.pool,
        reason=line.reason,
        reason_class=follows.reason_class if follows else None,
        touch_id=line.touch_id,
        ends_cycle=ends_cycle,
        ended_at=after.ended_at if ends_cycle else None,
    )
    return structs.replace(event, candidates=why_not(line.decision)) if isinstance(event, HandoffUnrouted) else event


def of_clocks(handoff: Handoff, told: Iterable[Told], terms: Terms) -> tuple[SlaEvent, ...]:
    """Reminders, breaches and met milestones, with the owner as he is, and his manager where the policy tells him."""
    return tuple(
        SLA_EVENTS[each.what](
            clock_id=each.clock.clock_id,
            handoff_id=handoff.handoff_id,
            mql_id=handoff.mql_id,
            opened_for=handoff.opened_for,
            lead_id=handoff.lead_id,
            milestone=each.clock.milestone,
            subject=each.clock.subject,
            policy=each.clock.policy,
            agreement_version=handoff.agreement_version,
            version=each.clock.version,
            started_at=each.clock.started_at,
            due_at=each.clock.due_at,
            at=each.at,
            elapsed_seconds=elapsed_seconds(terms.policy, each.clock, each.at),
            wall_seconds=(each.at - each.clock.started_at).total_seconds(),
            owner=handoff.owner,
            manager=terms.manager_of(handoff.owner) if terms.policy.notifies_manager else None,
            warn_at_percent=each.clock.warned if each.what == "warned" else None,
            late_report=each.clock.late_report,
        )
        for each in told
    )


class _Addressed(TypedDict):
    handoff_id: str
    mql_id: str
    opened_for: str
    lead_id: str
    version: int


def of_nurture(before: Handoff, after: Handoff, action: Action, follows: Consequence | None) -> tuple[Event, ...]:
    """The nurture lock: from the MQL to the end of the handoff. One that is merged away leaves it to the other's.

    Whether another one of its lead is open, whoever holds the lead's lock knows: see `still_locked`.
    """
    to = _Addressed(
        handoff_id=after.handoff_id,
        mql_id=after.mql_id,
        opened_for=after.opened_for,
        lead_id=after.lead_id,
        version=after.version,
    )
    if before.state is None:
        return (NurtureSuspended(**to, at=after.opened_at),)
    if action not in LIFTS_THE_LOCK or after.ended_at is None:
        return ()
    if follows is None or follows.track is None:
        return (NurtureResumed(**to, at=after.ended_at),)
    wake_at = after.ended_at + follows.wake_after if follows.wake_after else None
    return (
        NurtureRequested(
            **to,
            at=after.ended_at,
            track=follows.track,
            reason=follows.reason,
            reason_class=follows.reason_class,
            wake_at=wake_at,
        ),
    )


def still_locked(events: Iterable[Event]) -> tuple[Event, ...]:
    """The events of a handoff while another one of its lead is open: its end does not lift the nurture lock."""
    return tuple(
        structs.replace(event, is_locked=True) if isinstance(event, NurtureRequested | NurtureResumed) else event
        for event in events
    )


def why_not(decision: str | None) -> dict[str, str]:
    """Why each candidate of a decision (JSON, see `route.Decision`) was not eligible, by rep."""
    candidates = json.loads(decision)["candidates"] if decision else ()
    return {candidate["rep"]: candidate["why"] for candidate in candidates}


def _previous_owner(before: Handoff, after: Handoff) -> str | None:
    """Who had it before its owner of now."""
    if before.owner != after.owner and before.owner is not None:
        return before.owner
    return after.past_owners[-1].owner if after.past_owners else None
