"""The clocks of a handoff: which ones its state and policy imply, when they are due, what meets them, what they say.

A clock is one milestone in working time. The lead's clock starts at the MQL and never starts again; a rep's starts with
each assignment. `aligned` makes a handoff's clocks be exactly those implied: it opens what is missing and ends what no
longer applies, recording a breach first where the deadline passed before a worker saw it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Literal, NamedTuple, TypedDict, Unpack

from services.handoff.lifecycle import State
from shared.worktime import Calendar, deadline, elapsed

LEAD = "lead"  # the subject of a clock that no rep can reset

Start = Literal["mql", "assigned", "previous"]


class Milestone(StrEnum):
    ACCEPT = "accept"
    FIRST_TOUCH = "first_touch"
    NEXT_STEP = "next_step"


class ClockState(StrEnum):
    OPEN = "open"
    MET = "met"
    BREACHED = "breached"
    CLOSED = "closed"


EXPECTED_IN = {  # the states in which a milestone is still awaited
    Milestone.ACCEPT: frozenset({State.ASSIGNED}),
    Milestone.FIRST_TOUCH: frozenset({State.UNROUTED, State.ASSIGNED, State.ACCEPTED}),
    Milestone.NEXT_STEP: frozenset({State.ACCEPTED}),
}


@dataclass(frozen=True, slots=True)
class Limit:
    """A milestone of a policy: how much working time it has, and from when."""

    milestone: Milestone
    working_seconds: float
    start: Start


@dataclass(frozen=True, slots=True)
class Policy:
    """What the agreement says about the clocks of one handoff. `warn_at`: percents of a clock's time, ascending."""

    name: str
    calendar_name: str
    calendar: Calendar
    limits: tuple[Limit, ...]
    warn_at: tuple[int, ...] = ()
    notifies_manager: bool = True
    reassigns: bool = False
    max_reassigns: int = 0


@dataclass(frozen=True, slots=True)
class Clock:
    """One milestone. `ended_at`: met or no longer awaited; a breached clock without it goes on.

    `met_at` beside `breached_at`: too late, or (state met, `late_report`) in time and reported after the breach.
    """

    clock_id: str
    handoff_id: str
    milestone: Milestone
    subject: str
    state: ClockState
    version: int
    policy: str
    calendar: str
    opened_version: int
    started_at: datetime
    due_at: datetime
    wake_at: datetime | None
    warned: int = 0
    breached_at: datetime | None = None
    met_at: datetime | None = None
    ended_at: datetime | None = None
    late_report: bool = False

    @property
    def is_open(self) -> bool:
        return self.state is ClockState.OPEN

    @property
    def is_awaited(self) -> bool:
        return self.ended_at is None


class Position(NamedTuple):
    """As much of a handoff as its clocks depend on."""

    handoff_id: str
    version: int
    state: State
    owner: str | None
    qualified_at: datetime
    assigned_at: datetime | None


class Implied(NamedTuple):
    """A clock that a handoff must have had by now."""

    limit: Limit
    subject: str
    started_at: datetime


class Told(NamedTuple):
    """Something to say about a clock, as it then was."""

    what: Literal["warned", "breached", "met"]
    clock: Clock
    at: datetime


Changed = tuple[Clock, tuple[Told, ...]]


def implied_open_milestones(policy: Policy, position: Position, clocks: Iterable[Clock]) -> frozenset[tuple[str, str]]:
    """The (milestone, subject) pairs that must be open: what the state awaits, less what was met or breached."""
    clocks = tuple(clocks)
    return frozenset(
        (implied.limit.milestone, implied.subject)
        for implied in _implied(policy, position, clocks)
        if (found := _clock_of(implied, clocks)) is None or found.is_open
    )


def aligned(
    policy: Policy, position: Position, clocks: Iterable[Clock], now: datetime
) -> tuple[list[Clock], list[Told]]:
    """The clocks as the state implies them, and the breaches that had to be recorded on the way."""
    clocks, told = tuple(clocks), list[Told]()
    implied = _implied(policy, position, clocks)
    awaited = {clock.clock_id for each in implied if (clock := _clock_of(each, clocks)) is not None}
    kept = []
    for clock in clocks:
        after, said = (clock, ()) if clock.clock_id in awaited else _ended(clock, now)
        kept.append(after)
        told += said
    opened = [_opened(policy, position, each) for each in implied if _clock_of(each, clocks) is None]
    return kept + opened, told


def met(clock: Clock, at: datetime, now: datetime) -> Changed:
    """The milestone was reached at `at`, of which we hear now.

    In time: met. Too late, and no worker saw it yet: the breach is recorded first. In time, but reported after the
    breach: the books are corrected, as a late report.
    """
    at = max(at, clock.started_at)
    in_time = at <= clock.due_at
    if clock.is_open and not in_time:
        clock, told = breached(clock, now)
        late, more = met(clock, at, now)
        return late, told + more
    if clock.is_open or (clock.state is ClockState.BREACHED and in_time):
        late_report = not clock.is_open
        after = _changed(clock, state=ClockState.MET, met_at=at, ended_at=at, late_report=late_report)
    elif clock.state is ClockState.BREACHED and clock.ended_at is None:
        after = _changed(clock, met_at=at, ended_at=at)
    else:
        return clock, ()
    return after, (Told("met", after, at),)


def breached(clock: Clock, now: datetime) -> Changed:
    """The deadline of an open clock passed; it goes on, breached."""
    after = _changed(clock, state=ClockState.BREACHED, breached_at=now)
    return after, (Told("breached", after, now),)


def woken(policy: Policy, clock: Clock, now: datetime) -> Changed:
    """What an open clock says at `now`: a breach, the latest reminder that fell due, or nothing."""
    if clock.due_at <= now:
        return breached(clock, now)
    passed = [
        percent for percent in policy.warn_at if clock.warned < percent and _reminder(policy, clock, percent) <= now
    ]
    if not passed:
        return clock, ()
    after = replace(clock, warned=passed[-1], version=clock.version + 1)
    after = replace(after, wake_at=_wake_at(policy, after))
    return after, (Told("warned", after, now),)


def elapsed_seconds(policy: Policy, clock: Clock, at: datetime) -> float:
    """Working time since the clock's start."""
    return elapsed(policy.calendar, clock.started_at, at)


def next_wake(clocks: Iterable[Clock]) -> datetime | None:
    """When a worker must look at these clocks next."""
    return min((clock.wake_at for clock in clocks if clock.is_open and clock.wake_at is not None), default=None)


def _implied(policy: Policy, position: Position, clocks: tuple[Clock, ...]) -> list[Implied]:
    """Every clock that the state awaits, whether it is still open or not."""
    implied: list[Implied] = []
    previous: datetime | None = position.assigned_at
    for limit in policy.limits:
        subject = LEAD if limit.start == "mql" else position.owner
        starts: dict[Start, datetime | None] = {
            "mql": position.qualified_at,
            "assigned": position.assigned_at,
            "previous": previous,
        }
        start = starts[limit.start]
        if subject is None:
            continue
        clock = _clock_of(Implied(limit, subject, start or position.qualified_at), clocks)
        previous = clock.met_at if clock is not None else None
        if start is not None and position.state in EXPECTED_IN[limit.milestone]:
            implied.append(Implied(limit, subject, start))
    return implied


def _clock_of(implied: Implied, clocks: tuple[Clock, ...]) -> Clock | None:
    """The clock that answers to it. One that was closed does not: what it waited for is awaited again.

    A start that a late report corrects moves no clock that has begun.
    """
    for clock in reversed(clocks):
        is_its = (clock.milestone, clock.subject) == (implied.limit.milestone, implied.subject)
        has_its_start = implied.limit.start == "previous" or clock.started_at == implied.started_at
        if is_its and has_its_start and clock.state is not ClockState.CLOSED:
            return clock
    return None


def _opened(policy: Policy, position: Position, implied: Implied) -> Clock:
    limit, subject, started_at = implied
    name = f"{position.handoff_id}|{limit.milestone}|{subject}|{position.version}"
    clock = Clock(
        clock_id=f"clock_{hashlib.sha256(name.encode()).hexdigest()[:32]}",
        handoff_id=position.handoff_id,
        milestone=limit.milestone,
        subject=subject,
        state=ClockState.OPEN,
        version=1,
        policy=policy.name,
        calendar=policy.calendar_name,
        opened_version=position.version,
        started_at=started_at,
        due_at=deadline(policy.calendar, started_at, limit.working_seconds),
        wake_at=None,
    )
    return replace(clock, wake_at=_wake_at(policy, clock))


def _ended(clock: Clock, now: datetime) -> Changed:
    """Nobody waits for it any more."""
    if clock.is_open and clock.due_at > now:
        return _changed(clock, state=ClockState.CLOSED, ended_at=now), ()
    told: tuple[Told, ...] = ()
    if clock.is_open:
        clock, told = breached(clock, now)
    return (clock if clock.ended_at else _changed(clock, ended_at=now)), told


class _Changes(TypedDict, total=False):
    state: ClockState
    breached_at: datetime
    met_at: datetime
    ended_at: datetime
    late_report: bool


def _changed(clock: Clock, **changes: Unpack[_Changes]) -> Clock:
    """The next version of a clock, which no worker has to look at again."""
    return replace(clock, version=clock.version + 1, wake_at=None, **changes)


def _wake_at(policy: Policy, clock: Clock) -> datetime:
    """The next reminder, or the deadline."""
    ahead = [_reminder(policy, clock, percent) for percent in policy.warn_at if clock.warned < percent]
    return min([*ahead, clock.due_at])


def _reminder(policy: Policy, clock: Clock, percent: int) -> datetime:
    whole = elapsed(policy.calendar, clock.started_at, clock.due_at)
    return deadline(policy.calendar, clock.started_at, whole * percent / 100)
