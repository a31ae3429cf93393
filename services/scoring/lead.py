"""A lead in memory, for the length of a batch: it takes activities, merges and versions, and says when it qualified."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from services.scoring.brief import asked_for, summed_up
from services.scoring.qualify import FIRST, Cycle, Mql, Qualification, current_cycle, judge, mql_id
from services.scoring.score import (
    Facts,
    Reading,
    Tally,
    earn,
    explain,
    fold,
    is_fresh,
    is_of_cycle,
    joined,
    learn,
    net,
    raised_by,
    reading,
    take,
    values,
)
from services.scoring.scorecard import Card, day_of
from shared.events import ActivityRecorded, ExplanationLine, Scalar


class Displayed(msgspec.Struct, frozen=True):
    """What was last said about a score; `version` counts the times."""

    reading: Reading
    version: int


@dataclass(slots=True)
class Standing:
    """Where a lead stands under one scorecard. `reading` is the score on `day`, but for the `stale` dimensions."""

    card: Card
    tally: Tally
    cycle: Cycle = FIRST
    day: int | None = None
    reading: Reading | None = None
    stale: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Crossing:
    """A lead became an MQL: under which clause, with which score, and why; `attributes`: those the agreement names."""

    lead_id: str
    card: Card
    agreement_version: int
    mql: Mql
    qualification: Qualification
    reading: Reading
    explanation: Sequence[ExplanationLine]
    attributes: dict[str, Scalar]


@dataclass(slots=True)
class Lead:
    """`last_received_at`: the greatest that was applied; `history`: its activities, where they may be folded anew.

    `is_changed`: something other than its scores is to be stored.
    """

    lead_id: str
    version: int
    last_received_at: datetime | None
    facts: Facts
    mqls: list[Mql] = field(default_factory=list)
    standings: list[Standing] = field(default_factory=list)
    displayed: dict[str, Displayed] = field(default_factory=dict)
    history: list[ActivityRecorded] | None = None
    is_changed: bool = False

    @property
    def attributes(self) -> dict[str, Scalar]:
        return values(self.facts)


def apply(lead: Lead, activity: ActivityRecorded) -> list[Crossing]:
    """Take one activity that the lead did not have, and judge the lead unless the activity is too old for that."""
    lead.last_received_at = _later(lead.last_received_at, activity.received_at)
    if lead.history is not None:
        lead.history.append(activity)
    if activity.attributes:
        _learn(lead, activity)
    for standing in lead.standings:
        met = take(standing.card, standing.tally, activity, standing.cycle.started_at)
        standing.stale.update([rule.dimension for rule in met])
    crossings: list[Crossing] = []
    for standing in lead.standings:
        if not standing.cycle.is_open and is_fresh(standing.card, activity):
            crossings += _judge(lead, standing)
    return crossings


def fold_anew(lead: Lead, cards: Iterable[Card], version: int) -> None:
    """Score the lead's whole history under these scorecards."""
    if lead.history is None:
        raise ValueError(f"{lead.lead_id}: no history at hand to fold")
    lead.version = version
    lead.is_changed = True
    lead.standings = []
    for card in cards:
        cycle = current_cycle(lead.mqls, card.product, card.motion)
        tally = fold(card, lead.history, cycle_started_at=cycle.started_at)
        lead.standings.append(Standing(card, tally, cycle))


def absorb(lead: Lead, other: Lead, received_at: datetime) -> None:
    """The other lead was the same person: its activities, facts and MQLs are this one's, which is to be folded anew.

    What was said of the other one's scores is not taken over: nobody heard it of this lead, whose versions are its own.
    """
    if lead.history is None or other.history is None:
        raise ValueError(f"{lead.lead_id}: a merge needs both histories")
    lead.history += other.history
    lead.facts = joined(lead.facts, other.facts)
    lead.mqls += other.mqls
    for at in (other.last_received_at, received_at):
        lead.last_received_at = _later(lead.last_received_at, at)


def judge_once(lead: Lead, *, now: datetime | None = None) -> list[tuple[Crossing, ActivityRecorded]]:
    """Judge the lead after what was no activity: over what the current cycle received fresh (and is so `now`).

    With each crossing the activity from which sales' clock counts: the first raised hand that the clause asked for,
    else the last activity.
    """
    found = []
    for standing in lead.standings:
        card, cycle = standing.card, standing.cycle
        fresh = [
            activity
            for activity in lead.history or ()
            if is_of_cycle(card, activity, cycle.started_at)
            and (now is None or now - activity.received_at <= card.qualify_max_age)
        ]
        for crossing in _judge(lead, standing) if fresh else ():
            key = crossing.qualification.raised_hand
            hands = [activity for activity in fresh if any(hand.key == key for hand in raised_by(card, activity))]
            first = min(hands, key=_place) if hands else max(fresh, key=_place)
            found.append((crossing, first))
    return found


def resume(card: Card, tally: Tally, cycle: Cycle, said: Displayed, as_of: datetime) -> Standing:
    """Where a lead stood when this was said of its tally, under this very card."""
    return Standing(card, tally, cycle, day_of(as_of, card.zone), said.reading)


def read(lead: Lead, standing: Standing) -> Reading:
    """The score as of the last that was received; only the dimensions that may have changed are asked again."""
    if lead.last_received_at is None:
        raise ValueError(f"{lead.lead_id}: nothing was received of it yet")
    card, known, day = standing.card, standing.reading, day_of(lead.last_received_at, standing.card.zone)
    if day != standing.day:
        standing.stale |= card.fading
        standing.day = day
    if known is None:
        standing.stale |= {dimension.id for dimension in card.dimensions}
    elif not standing.stale:
        return known
    nets = {} if known is None else dict(known.dimensions)
    attributes = lead.attributes if standing.stale & card.factual else {}
    for dimension in card.dimensions:
        if dimension.id in standing.stale:
            nets[dimension.id] = net(dimension, standing.tally, attributes, day)
    standing.stale.clear()
    if known is None or nets != known.dimensions:
        standing.reading = known = reading(card, nets)
    return known


def display(lead: Lead, standing: Standing) -> Displayed | None:
    """What is to be said about the score now, if it is not what was said last."""
    said = lead.displayed.get(standing.card.id)
    now = read(lead, standing)
    if said is not None and said.reading == now:
        return None
    lead.displayed[standing.card.id] = Displayed(now, said.version + 1 if said else 1)
    return lead.displayed[standing.card.id]


def _learn(lead: Lead, activity: ActivityRecorded) -> None:
    lead.is_changed = True
    if learn(lead.facts, activity):
        for standing in lead.standings:
            standing.stale |= standing.card.factual


def _judge(lead: Lead, standing: Standing) -> list[Crossing]:
    if standing.cycle.is_open or lead.last_received_at is None:
        return []
    card, cycle, now = standing.card, standing.cycle, read(lead, standing)
    qualification = judge(card, standing.tally, now, cycle, lead.last_received_at)
    if qualification is None:
        return []
    number, attributes = cycle.number, lead.attributes
    mql = Mql(mql_id(lead.lead_id, card.product, card.motion, number), lead.lead_id, card.product, card.motion, number)
    _open(lead, mql)
    lines = explain(card, earn(card, standing.tally, attributes, day_of(lead.last_received_at, card.zone)))
    known = asked_for(attributes, card.fields)
    return [Crossing(lead.lead_id, card, lead.version, mql, qualification, now, summed_up(lines), known)]


def _open(lead: Lead, mql: Mql) -> None:
    lead.mqls.append(mql)
    for standing in lead.standings:
        standing.cycle = current_cycle(lead.mqls, standing.card.product, standing.card.motion)


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    if one is None or other is None:
        return one or other
    return max(one, other)


def _place(activity: ActivityRecorded) -> tuple[datetime, str]:
    return activity.received_at, activity.activity_id
