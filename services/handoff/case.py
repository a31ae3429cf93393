"""The values of this service: a handoff with its clocks, what sales did for its lead, and a change to it.

Frozen: a change makes a new one. A `Case` is a handoff under its lock, with what is still to be written and said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from services.handoff.clock import Clock, Position, next_wake
from services.handoff.lifecycle import Action, State
from shared.events import Event, Scalar

Why = Literal["rejected it", "had it before"]


class PastOwner(NamedTuple):
    """Who had the handoff until when, and why he does not get it again."""

    owner: str
    until: datetime
    why: Why


@dataclass(frozen=True, slots=True)
class Handoff:
    """One MQL given to sales: the row, with its clocks. `lead_id` is the current lead, `opened_for` never changes."""

    handoff_id: str
    mql_id: str
    lead_id: str
    opened_for: str
    product: str
    motion: str
    cycle: int
    clause: str
    facts: Mapping[str, Scalar]
    agreement_version: int
    traceparent: str
    qualified_at: datetime
    opened_at: datetime
    state: State | None = None  # None: not open yet
    version: int = 0
    owner: str | None = None
    pool: str | None = None
    reason: str | None = None
    reassigns: int = 0
    attempts: int = 0
    past_owners: tuple[PastOwner, ...] = ()
    assigned_at: datetime | None = None
    ended_at: datetime | None = None
    route_at: datetime | None = None
    route_cause: str | None = None
    clocks: tuple[Clock, ...] = ()

    @property
    def is_open(self) -> bool:
        return self.state is not None and self.state.is_open

    @property
    def wake_at(self) -> datetime | None:
        return next_wake(self.clocks)

    @property
    def position(self) -> Position:
        assert self.state is not None, "a handoff that is not open has no clocks"
        return Position(self.handoff_id, self.version, self.state, self.owner, self.qualified_at, self.assigned_at)

    def was_owned_by(self, performer: str, at: datetime) -> bool:
        """Whether it was his to touch: he has it, or had it still at that time."""
        return performer == self.owner or any(past.owner == performer and at < past.until for past in self.past_owners)


@dataclass(frozen=True, slots=True)
class Touch:
    """What a person of sales did, as its sender tells it. `came_in_under`: the lead it named, before any merge."""

    touch_id: str
    lead_id: str
    came_in_under: str
    kind: str
    performer: str
    source: str
    source_id: str
    occurred_at: datetime
    received_at: datetime
    outcome: str | None = None


@dataclass(frozen=True, slots=True)
class Deal:
    """An opportunity as the CRM last told it; `stage` is the CRM's word. `handoff_id`: the one cycle it belongs to."""

    source: str
    opportunity_id: str
    lead_id: str
    came_in_under: str
    stage: str
    occurred_at: datetime
    received_at: datetime
    handoff_id: str | None = None
    name: str | None = None
    amount: str | None = None
    currency: str | None = None
    owner: str | None = None
    product: str | None = None
    motion: str | None = None
    reason: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.source, self.opportunity_id


@dataclass(frozen=True, slots=True)
class Change:
    """What is to happen to a handoff. `actor`: a rep's id, a head's e-mail, `baton` or a source; `cause`: the event,
    request or clock behind it. `at`: when it took effect, if not now. `owner`, `pool`, `decision`: the router's.
    """

    action: Action
    actor: str
    cause: str
    at: datetime | None = None
    reason: str | None = None
    note: str | None = None
    touch_id: str | None = None
    owner: str | None = None
    pool: str | None = None
    decision: str | None = None
    route_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a handoff's history."""

    handoff_id: str
    version: int
    from_state: State | None
    to_state: State
    type: str
    actor: str
    cause: str
    happened_at: datetime
    recorded_at: datetime
    owner: str | None
    reason: str | None
    note: str | None
    touch_id: str | None
    decision: str | None


@dataclass(frozen=True, slots=True)
class Case:
    """A handoff while it is being changed, under its lock: what is still to be written and said."""

    handoff: Handoff
    lines: tuple[Line, ...] = ()
    events: tuple[Event, ...] = ()
