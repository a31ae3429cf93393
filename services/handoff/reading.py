"""Handoffs as the API shows them: the row, and on its own page its clocks, history, routing and touches."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from services.handoff.case import Handoff, Line, Touch
from services.handoff.clock import Clock, elapsed_seconds
from services.handoff.lifecycle import Action, State
from services.handoff.notices import why_not
from services.handoff.recycle import ended_by
from services.handoff.store import handoffs, leads, lists, owners, touches
from services.handoff.store.lists import Unrouted
from services.handoff.terms import Terms
from services.handoff.transitions import terms_for
from shared.agreement_copies import in_force
from shared.db import Session
from shared.web import encode_cursor

Json = dict[str, Any]

ROW = (
    "mql_id",
    "lead_id",
    "opened_for",
    "product",
    "motion",
    "cycle",
    "clause",
    "state",
    "owner",
    "pool",
    "version",
    "reason",
    "reassigns",
    "attempts",
    "agreement_version",
    "qualified_at",
    "opened_at",
    "assigned_at",
    "ended_at",
)
CLOCK = (
    "milestone",
    "subject",
    "state",
    "started_at",
    "due_at",
    "breached_at",
    "met_at",
    "ended_at",
    "policy",
    "calendar",
)
TOUCH = ("kind", "performer", "source", "occurred_at", "received_at", "outcome")


async def page(session: Session, *, before: tuple[datetime, str], size: int, filters: dict[str, str]) -> Json:
    """One page of handoffs, from the newest. Filters: state, owner, lead; an absorbed lead means its survivor."""
    if lead := filters.get("lead"):
        filters = {**filters, "lead": await leads.root_of(session, lead)}
    found = await lists.page(session, before=before, size=size + 1, filters=filters)
    last = found[size - 1] if len(found) > size else None
    return {
        "items": await _summaries(session, found[:size]),
        "next": encode_cursor(last.opened_at, last.handoff_id) if last else None,
    }


async def find(session: Session, handoff_id: str) -> Json | None:
    """Everything about one handoff; None: there is none of that id."""
    handoff = await handoffs.find(session, handoff_id)
    return await detail(session, handoff) if handoff else None


async def detail(session: Session, handoff: Handoff) -> Json:
    """Everything about a handoff that was just read or written in this transaction."""
    terms = await terms_for(session, handoff)
    now = await session.now()
    lines = await handoffs.history(session, handoff.handoff_id)
    done = (await touches.of_leads(session, [handoff.lead_id])).get(handoff.lead_id, [])
    (row,) = await _summaries(session, [handoff])
    shown: Json = msgspec.to_builtins(
        {
            **row,
            "nurture": _nurture(handoff, terms),
            "clocks": [_clock(clock, terms, now) for clock in handoff.clocks],
            "history": [_line(line) for line in lines],
            "routing": [_decision(line) for line in lines if line.decision],
            "touches": [_touch(touch, lines) for touch in done if touch.occurred_at >= handoff.qualified_at],
        }
    )
    return shown


async def reps(session: Session) -> Json:
    """The people of the agreement in force, their pools, and how many open handoffs each has."""
    copy = await in_force(session, await session.now())
    if copy is None:
        return {"items": [], "next": None, "agreement_version": None}
    counts = await owners.open_counts(session)
    items = [
        {
            "id": rep.id,
            "name": rep.name,
            "active": rep.active,
            "manager": rep.manager,
            "pools": [pool.id for pool in copy.agreement.pools if any(each.rep == rep.id for each in pool.members)],
            "open_handoffs": counts.get(rep.id, 0),
        }
        for rep in copy.agreement.reps
    ]
    return {"items": items, "next": None, "agreement_version": copy.version}


async def _summaries(session: Session, found: Sequence[Handoff]) -> list[Json]:
    waiting = [handoff.handoff_id for handoff in found if handoff.state is State.UNROUTED]
    unrouted = await lists.unrouted(session, waiting)
    return [_summary(handoff, unrouted.get(handoff.handoff_id)) for handoff in found]


def _summary(handoff: Handoff, unrouted: Unrouted | None) -> Json:
    """A handoff as a line of a list. `due_at`: the earliest deadline that is still open."""
    due_at = min((clock.due_at for clock in handoff.clocks if clock.is_open), default=None)
    row = {name: getattr(handoff, name) for name in ROW}
    nobody = _unrouted(handoff, unrouted) if unrouted else None
    shown: Json = msgspec.to_builtins({"id": handoff.handoff_id, **row, "due_at": due_at, "unrouted": nobody})
    return shown


def _unrouted(handoff: Handoff, unrouted: Unrouted) -> Json:
    """Why each candidate cannot have it, and when the last resort gets it; both follow the router's next look."""
    return {
        "since": unrouted.since,
        "last_resort_at": handoff.route_at if handoff.route_cause == Action.UNROUTE else None,
        "candidates": why_not(unrouted.decision),
    }


def _nurture(handoff: Handoff, terms: Terms) -> Json | None:
    """The track marketing was asked for at the end, and when the lead may be woken."""
    follows = ended_by(terms.agreement, handoff.state, handoff.reason) if handoff.state else None
    if follows is None or follows.track is None or handoff.ended_at is None:
        return None
    wake_at = handoff.ended_at + follows.wake_after if follows.wake_after else None
    return {"track": follows.track, "wake_at": wake_at}


def _clock(clock: Clock, terms: Terms, now: datetime) -> Json:
    """`elapsed_seconds` is working time until it ended, or until now; `wall_seconds` beside it."""
    until = clock.met_at or clock.ended_at or now
    return {
        "id": clock.clock_id,
        **{name: getattr(clock, name) for name in CLOCK},
        "late_report": clock.late_report,
        "warned_at_percent": clock.warned or None,
        "elapsed_seconds": elapsed_seconds(terms.policy, clock, until),
        "wall_seconds": (until - clock.started_at).total_seconds(),
    }


def _line(line: Line) -> Json:
    names = ("version", "type", "actor", "cause", "owner", "reason", "note", "touch_id", "recorded_at")
    shown = {name: getattr(line, name) for name in names}
    return {**shown, "from": line.from_state, "to": line.to_state, "at": line.happened_at}


def _decision(line: Line) -> Json:
    return {"at": line.happened_at, **json.loads(line.decision or "{}")}


def _touch(touch: Touch, lines: Iterable[Line]) -> Json:
    """`counted`: whether it was a touch of this handoff, as the agreement defines one."""
    is_counted = any(line.touch_id == touch.touch_id for line in lines)
    return {"id": touch.touch_id, **{name: getattr(touch, name) for name in TOUCH}, "counted": is_counted}
