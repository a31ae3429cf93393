"""A lead's whole history folded again, beside what is stored of it: `baton check` asks this of a sample.

What the order of records in their lane decided, and nothing stored tells, is not judged: who crossed first among
records that came within a second of each other, and what happened before a merge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.scoring.batch import Cards
from services.scoring.lead import Lead, fold_anew, read
from services.scoring.qualify import Cycle, Mql, current_cycle, judge
from services.scoring.score import Facts, fold, is_of_cycle, learn
from services.scoring.score import read as read_score
from services.scoring.scorecard import Card
from shared.checks import Finding
from shared.events import ActivityRecorded

SKEW = timedelta(seconds=1)  # doors that commit at once may publish in another order than they received


@dataclass(frozen=True, slots=True)
class Made:
    """An MQL as it is stored: the lead's, and under what and when it was made. `crossed_by`: an activity or event."""

    mql: Mql
    scorecard: str
    agreement_version: int
    crossed_by: str
    qualified_at: datetime
    created_at: datetime


def differences(lead: Lead) -> Iterator[Finding]:
    """I4: where the stored facts, tallies and scores differ from a fresh fold; the lead holds the fresh one then."""
    stored = list(lead.standings)
    facts: Facts = {}
    for activity in lead.history or ():
        learn(facts, activity)
    if facts != lead.facts:
        yield Finding("I4", lead.lead_id, "attributes differ from those its activities tell")
    last = max((activity.received_at for activity in lead.history or ()), default=None)
    if last is not None and (lead.last_received_at is None or lead.last_received_at < last):
        yield Finding("I4", lead.lead_id, "activities came later than its state says")
    if lead.last_received_at is None:
        return
    fold_anew(lead, [standing.card for standing in stored], lead.version)
    for kept, fresh in zip(stored, lead.standings, strict=True):
        displayed = lead.displayed.get(kept.card.id)
        if kept.tally != fresh.tally:
            yield Finding("I4", lead.lead_id, f"{kept.card.id}: the tally differs from a fresh fold")
        elif displayed is None or displayed.reading != read(lead, fresh):
            yield Finding("I4", lead.lead_id, f"{kept.card.id}: the score differs from a fresh fold")


def not_qualified(lead: Lead) -> Iterator[Finding]:
    """I7: the lead, folded afresh, meets a clause in its current cycle, and has no MQL.

    A lead is judged when a fresh activity comes, under the version in force then; so only one whose last activities
    were fresh, and came under the version that the lead is scored by, must have its MQL.
    """
    history = lead.history or []
    last = max((activity.received_at for activity in history), default=None)
    if last is None or lead.last_received_at is None:
        return
    latest = [activity for activity in history if last - activity.received_at <= SKEW]
    if any(activity.agreement_version != lead.version for activity in latest):
        return
    for standing in lead.standings:
        card, cycle = standing.card, standing.cycle
        if not all(is_of_cycle(card, activity, cycle.started_at) for activity in latest):
            continue
        found = judge(card, standing.tally, read(lead, standing), cycle, lead.last_received_at)
        if found is not None:
            yield Finding("I7", lead.lead_id, f"{card.id}: meets {found.clause} in cycle {cycle.number}, and is no MQL")


def twice_open(lead: Lead) -> Iterator[Finding]:
    """I7: at most one open MQL of each lead (as it was before any merge), product and motion."""
    held = Counter((mql.made_for, mql.product, mql.motion) for mql in lead.mqls if mql.is_open)
    for (made_for, product, motion), count in held.items():
        if count > 1:
            yield Finding("I7", made_for, f"{count} open MQLs for {product}, {motion}")


def unfounded(lead: Lead, made: Sequence[Made], cards: Cards) -> Iterator[Finding]:
    """I7: each MQL of a lead that was never merged is of the cycle that was due, and its lead met a clause then."""
    for one in made:
        mql = one.mql
        earlier = [other.mql for other in made if other.mql.cycle < mql.cycle]
        cycle = current_cycle(earlier, mql.product, mql.motion)
        card = next((card for card in cards.get(one.agreement_version, ()) if card.id == one.scorecard), None)
        if card is None:
            yield Finding("I7", mql.mql_id, f"version {one.agreement_version} has no scorecard {one.scorecard}")
        elif cycle.is_open or cycle.number != mql.cycle:
            yield Finding("I7", mql.mql_id, f"is of cycle {mql.cycle}, and the one before it had not ended")
        elif not _met(card, lead.history or (), cycle, one):
            yield Finding("I7", mql.mql_id, f"{card.id}: its lead met no clause when it was made")


def _met(card: Card, history: Sequence[ActivityRecorded], cycle: Cycle, one: Made) -> bool:
    """Whether the lead met a clause when the MQL says, or when it was written; or it cannot be told."""
    return (
        any(_meets(card, history, cycle, moment) for moment in (one.qualified_at, one.created_at))
        or sum(abs(activity.received_at - one.qualified_at) <= SKEW for activity in history) > 1
    )


def _meets(card: Card, history: Sequence[ActivityRecorded], cycle: Cycle, moment: datetime) -> bool:
    """Whether what was received up to a moment meets a clause."""
    known = [activity for activity in history if activity.received_at <= moment]
    if not known:
        return False
    facts: Facts = {}
    for activity in known:
        learn(facts, activity)
    tally = fold(card, known, cycle_started_at=cycle.started_at)
    as_of = max(activity.received_at for activity in known)
    return judge(card, tally, read_score(card, tally, facts, as_of), cycle, as_of) is not None
