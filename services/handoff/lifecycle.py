"""The life of a handoff: its states, and ONE table of what may happen in each.

    None -> assigned | unrouted                              the router, at the MQL
    unrouted -> assigned                                     the router: first time, or again
    assigned | accepted -> unrouted                          a breach or a logistics reason asks for a new routing
    assigned -> accepted -> qualified -> opportunity -> won | lost
    assigned -> rejected, accepted | qualified -> recycled   back to nurture: the cycle ends
    assigned | unrouted -> retracted, any open -> merged

Three fields are kept apart: the funnel stage of the cycle, this state, and what the rep is doing (lead status).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class IllegalTransition(ValueError):
    """The handoff's state does not allow the action; `allowed` says what may happen instead."""

    def __init__(self, state: State | None, action: Action, allowed: tuple[Action, ...]) -> None:
        super().__init__(f"a handoff that is {state or 'not open yet'} cannot {action}; allowed: {_words(allowed)}")
        self.state = state
        self.action = action
        self.allowed = allowed


class State(StrEnum):
    UNROUTED = "unrouted"
    ASSIGNED = "assigned"
    ACCEPTED = "accepted"
    QUALIFIED = "qualified"
    OPPORTUNITY = "opportunity"
    WON = "won"
    LOST = "lost"
    REJECTED = "rejected"
    RECYCLED = "recycled"
    RETRACTED = "retracted"
    MERGED = "merged"

    @property
    def is_open(self) -> bool:
        return self in OPEN


class Action(StrEnum):
    ASSIGN = "assign"
    UNROUTE = "unroute"
    REASSIGN = "reassign"
    EXPIRE = "expire"
    ACCEPT = "accept"
    TOUCH = "touch"
    REJECT = "reject"
    REROUTE = "reroute"
    RECYCLE = "recycle"
    QUALIFY = "qualify"
    OPEN_DEAL = "open_deal"
    WIN = "win"
    LOSE = "lose"
    RETRACT = "retract"
    REFUSE_RETRACTION = "refuse_retraction"
    MERGE = "merge"


class Party(StrEnum):
    """Who may do it. A rep is the owner; his head may act in his place."""

    ROUTER = "router"
    CLOCK = "clock"
    REP = "rep"
    CRM = "crm"
    SCORING = "scoring"


@dataclass(frozen=True, slots=True)
class Transition:
    """One row of the table. `target` None: the state stays; `ends_cycle`: the lead may qualify again afterwards."""

    sources: frozenset[State | None]
    target: State | None
    event: str
    who: frozenset[Party]
    ends_cycle: bool = False


OPEN = (State.UNROUTED, State.ASSIGNED, State.ACCEPTED, State.QUALIFIED, State.OPPORTUNITY)  # by how far they got
BEFORE_DEAL = frozenset(OPEN[:3])


def _row(
    sources: frozenset[State | None] | tuple[State | None, ...],
    target: State | None,
    event: str,
    who: tuple[Party, ...],
    *,
    ends_cycle: bool = False,
) -> Transition:
    return Transition(frozenset(sources), target, event, frozenset(who), ends_cycle)


TABLE: Mapping[Action, Transition] = {
    Action.ASSIGN: _row((None, State.UNROUTED), State.ASSIGNED, "handoff.assigned", (Party.ROUTER,)),
    Action.UNROUTE: _row((None, State.UNROUTED), State.UNROUTED, "handoff.unrouted", (Party.ROUTER,)),
    Action.REASSIGN: _row((State.UNROUTED,), State.ASSIGNED, "handoff.reassigned", (Party.ROUTER,)),
    Action.EXPIRE: _row((State.ASSIGNED, State.ACCEPTED), State.UNROUTED, "handoff.expired", (Party.CLOCK,)),
    Action.ACCEPT: _row((State.ASSIGNED,), State.ACCEPTED, "handoff.accepted", (Party.REP, Party.CRM)),
    Action.TOUCH: _row(OPEN, None, "handoff.touched", (Party.REP, Party.CRM)),
    Action.REJECT: _row((State.ASSIGNED,), State.REJECTED, "handoff.rejected", (Party.REP,), ends_cycle=True),
    Action.REROUTE: _row((State.ASSIGNED,), State.UNROUTED, "handoff.rejected", (Party.REP,)),
    Action.RECYCLE: _row(
        (State.ACCEPTED, State.QUALIFIED), State.RECYCLED, "handoff.recycled", (Party.REP,), ends_cycle=True
    ),
    Action.QUALIFY: _row(BEFORE_DEAL, State.QUALIFIED, "handoff.qualified", (Party.CRM,)),
    Action.OPEN_DEAL: _row(OPEN[:4], State.OPPORTUNITY, "handoff.opportunity", (Party.CRM,)),
    Action.WIN: _row(OPEN, State.WON, "handoff.won", (Party.CRM,), ends_cycle=True),
    Action.LOSE: _row(OPEN, State.LOST, "handoff.lost", (Party.CRM,), ends_cycle=True),
    Action.RETRACT: _row(OPEN[:2], State.RETRACTED, "handoff.retracted", (Party.SCORING,), ends_cycle=True),
    Action.REFUSE_RETRACTION: _row(tuple(State), None, "handoff.retraction_refused", (Party.SCORING,)),
    Action.MERGE: _row(OPEN, State.MERGED, "handoff.merged", (Party.SCORING,)),
}


def transition(state: State | None, action: Action) -> Transition:
    """The row for an action in a state (None: not open yet). Raises `IllegalTransition`."""
    row = TABLE[action]
    if state not in row.sources:
        raise IllegalTransition(state, action, allowed_actions(state))
    return row


def allowed_actions(state: State | None, party: Party = Party.REP) -> tuple[Action, ...]:
    """What a party may do in a state, in the table's order; a rep's re-routing is a rejection to him."""
    return tuple(
        action
        for action, row in TABLE.items()
        if state in row.sources and party in row.who and action is not Action.REROUTE
    )


def advance(state: State) -> int:
    """How far an open handoff got: of two, the less advanced gives way at a merge."""
    return OPEN.index(state)


def _words(actions: tuple[Action, ...]) -> str:
    return ", ".join(actions) or "nothing"
