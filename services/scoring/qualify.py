"""When a lead is an MQL: once in each cycle, by the first clause of the agreement that holds (law 5).

A cycle is open from its MQL until sales is done with it; then the next one begins, and conditions on activities see
only what was received since. Everything is judged as of the greatest `received_at` applied to the lead, so that time
alone never makes an MQL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from services.scoring.score import Reading, Tally, gained, points
from services.scoring.scorecard import Card


@dataclass(frozen=True, slots=True)
class Mql:
    """One MQL of a lead. `made_for` is the lead it was made for, before any merge.

    `gave_way`: its handoff was merged into another one's, which ends no cycle, but keeps none open either.
    """

    mql_id: str
    made_for: str
    product: str
    motion: str
    cycle: int
    ended_at: datetime | None = None
    gave_way: bool = False

    @property
    def is_open(self) -> bool:
        return self.ended_at is None and not self.gave_way


@dataclass(frozen=True, slots=True)
class Cycle:
    """Where a lead is for one product and motion. `started_at`: when the cycle before ended; None in the first one."""

    number: int
    started_at: datetime | None
    is_open: bool


@dataclass(frozen=True, slots=True)
class Qualification:
    """The clause that held, and the raised hand that it asked for, if any."""

    clause: str
    raised_hand: str | None


def mql_id(lead_id: str, product: str, motion: str, cycle: int) -> str:
    """The same for the same lead and cycle, on every machine and in every replay."""
    return "mql_" + hashlib.sha256(f"{lead_id}|{product}|{motion}|{cycle}".encode()).hexdigest()[:32]


def current_cycle(mqls: Iterable[Mql], product: str, motion: str) -> Cycle:
    """The cycle that these MQLs leave the lead in; of merged leads, the greater, open while an MQL of either is."""
    ours = [mql for mql in mqls if mql.product == product and mql.motion == motion]
    if not ours:
        return FIRST
    is_open = any(mql.is_open for mql in ours)
    if is_open:
        number = max(mql.cycle + (mql.ended_at is not None) for mql in ours)
    else:
        number = max(mql.cycle for mql in ours) + 1
    return Cycle(number, max((mql.ended_at for mql in ours if mql.ended_at), default=None), is_open)


def judge(card: Card, tally: Tally, reading: Reading, cycle: Cycle, as_of: datetime) -> Qualification | None:
    """Whether the lead qualifies now. A raised hand waits for nothing but the end of the cycle before."""
    if cycle.is_open:
        return None
    has_waited = may_requalify(card, tally, cycle, as_of)
    known = points(reading.dimensions)
    for clause in card.clauses:
        is_due = has_waited if clause.raised_hand is None else clause.raised_hand in tally.seen
        if is_due and clause.holds(known):
            return Qualification(clause.name, clause.raised_hand)
    return None


def may_requalify(card: Card, tally: Tally, cycle: Cycle, as_of: datetime) -> bool:
    """In the first cycle: yes. Later: long enough after the last one ended, or enough points gained since."""
    if cycle.started_at is None:
        return True
    if card.requalify_after is not None and as_of >= cycle.started_at + card.requalify_after:
        return True
    return card.requalify_points is not None and gained(card, tally) >= card.requalify_points


FIRST = Cycle(1, None, False)
