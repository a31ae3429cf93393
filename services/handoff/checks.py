"""What must hold in handoff's books at any time: `baton check` lists every exception, and there is none.

I8: handoff and MQL belong together. I9: each handoff has exactly the open clocks that its state and policy imply. I10:
no clock fired before it was due, or twice, none is overdue. I12: every history is a legal walk that ends where the
handoff is. I22: nothing is left over, and nobody waits for the router in vain.

Bounded, see `shared/checks.py`: of handoffs up to 3,000 with their clocks and histories, of other tables two slices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy.engine import Row

from services.handoff.case import Handoff
from services.handoff.clock import Clock, ClockState, implied_open_milestones
from services.handoff.desk import handoff_id_of
from services.handoff.lifecycle import TABLE, State
from services.handoff.store import checks as slices
from services.handoff.store import handoffs
from services.handoff.transitions import terms_in
from shared.agreement import Agreement
from shared.agreement_copies import versions
from shared.checks import GRACE, SHOWN, Finding
from shared.db import Session


async def checks(session: Session, *, grace: timedelta = GRACE) -> list[Finding]:
    """I8 as far as the books tell, I9, I10, I12 and I22. `grace` is for what waits for a worker or the router."""
    before = await session.now() - grace
    found = await handoffs.read(session, await slices.sample(session))
    agreements = await versions(session, {handoff.agreement_version for handoff in found})
    lines = await slices.histories(session, (handoff.handoff_id for handoff in found))
    left_over = await slices.left_over(session)
    return [
        *_first(finding for handoff in found for finding in _pair(handoff)),
        *_first(finding for handoff in found for finding in _open_clocks(handoff, agreements)),
        *_first(finding for handoff in found for finding in _fired(handoff)),
        *_first(finding for handoff in found for finding in _walk(handoff, lines.get(handoff.handoff_id, ()))),
        *_first(finding for handoff in found for finding in _waits(handoff)),
        *await _late(session, before),
        *(Finding("I22", *each) for each in sorted(left_over)[:SHOWN]),
    ]


def _pair(handoff: Handoff) -> Iterator[Finding]:
    if handoff.handoff_id != handoff_id_of(handoff.mql_id):
        yield Finding("I8", handoff.handoff_id, f"belongs to {handoff.mql_id}, whose handoff has another id")


def _open_clocks(handoff: Handoff, agreements: dict[int, Agreement]) -> Iterator[Finding]:
    if handoff.agreement_version not in agreements:
        version = handoff.agreement_version
        yield Finding("I22", handoff.handoff_id, f"lives under version {version} of the agreement, which is not here")
        return
    running = {(clock.milestone, clock.subject) for clock in handoff.clocks if clock.is_open}
    implied = implied_open_milestones(terms_in(agreements, handoff).policy, handoff.position, handoff.clocks)
    if running != implied:
        yield Finding("I9", handoff.handoff_id, f"{handoff.state}: open {_words(running)}, implied {_words(implied)}")


def _fired(handoff: Handoff) -> Iterator[Finding]:
    for clock in handoff.clocks:
        if (wrong := _misfired(clock)) is not None:
            yield Finding("I10", clock.clock_id, wrong)
    fired = Counter((clock.milestone, clock.subject, clock.started_at) for clock in handoff.clocks if clock.breached_at)
    for (milestone, _, started_at), times in fired.items():
        if times > 1:
            yield Finding("I10", handoff.handoff_id, f"{milestone} since {started_at.isoformat()} fired {times} times")


def _misfired(clock: Clock) -> str | None:
    """What a clock says of itself that cannot be."""
    if clock.breached_at is not None and clock.breached_at < clock.due_at:
        return "breached before it was due"
    if clock.met_at is not None and clock.met_at < clock.started_at:
        return "met before it started"
    if clock.state is ClockState.BREACHED and clock.breached_at is None:
        return "breached, and nothing says when"
    if clock.state is ClockState.MET and (clock.met_at is None or clock.met_at > clock.due_at):
        return "met, and not in time"
    if clock.is_open and (clock.breached_at or clock.met_at or clock.ended_at):
        return "open, and done with"
    return None


def _walk(handoff: Handoff, lines: Sequence[Row[Any]]) -> Iterator[Finding]:
    """Each step legal, from where the one before it led, versions without a gap, up to the handoff's own."""
    came_to: str | None = None
    for place, line in enumerate(lines, 1):
        if line.version != place or line.from_state != came_to:
            yield Finding("I12", handoff.handoff_id, f"version {line.version} does not follow from the one before")
        if not _is_legal(line.from_state, line.to_state, line.type):
            step = f"{line.from_state} -> {line.to_state} by {line.type}"
            yield Finding("I12", handoff.handoff_id, f"{step} is no step of the lifecycle")
        came_to = line.to_state
    if came_to != handoff.state or len(lines) != handoff.version:
        yield Finding("I12", handoff.handoff_id, "its history does not end in its state")


def _waits(handoff: Handoff) -> Iterator[Finding]:
    if handoff.state is State.UNROUTED and handoff.route_at is None:
        yield Finding("I22", handoff.handoff_id, "unrouted, and the router will not look")


async def _late(session: Session, before: datetime) -> list[Finding]:
    overdue = await slices.overdue(session, before)
    unrouted = await slices.unrouted(session, before)
    return [
        *(Finding("I10", row.clock_id, f"open, and due since {row.due_at.isoformat()}") for row in overdue),
        *(Finding("I22", row.handoff_id, f"waits for the router since {row.route_at.isoformat()}") for row in unrouted),
    ]


def _is_legal(from_state: str | None, to_state: str, event: str) -> bool:
    return any(
        row.event == event and from_state in row.sources and to_state == (row.target or from_state)
        for row in TABLE.values()
    )


def _first(findings: Iterable[Finding]) -> list[Finding]:
    return list(islice(findings, SHOWN))


def _words(pairs: Iterable[tuple[str, str]]) -> str:
    return ", ".join(sorted(milestone for milestone, _ in pairs)) or "none"
