"""A lead in memory, for the length of a batch: it takes activities, merges and versions, and says when it qualified."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from services.scoring.qualify import FIRST, Cycle, Mql, Qualification, current_cycle, judge, mql_id
from services.scoring.score import (
    Earned,
    Facts,
    Reading,
    Tally,
    earn,
    earned,
    explain,
    fold,
    is_fresh,
    is_of_cycle,
    joined,
    learn,
    raised_by,
    take,
    total,
    values,
)
from services.scoring.scorecard import Card, day_of
from shared.events import ActivityRecorded, ExplanationLine, Scalar


@dataclass(frozen=True, slots=True)
class Displayed:
    """What was last said about a score; `version` counts the times."""

    reading: Reading
    version: int


@dataclass(slots=True)
class Standing:
    """Where a lead stands under one scorecard. What the rules give on `day` is kept until an activity changes it."""

    card: Card
    tally: Tally
    cycle: Cycle = FIRST
    day: int | None = None
    by_rule: list[Earned] = field(default_factory=list)
    reading: Reading | None = None
    changed: set[int] = field(default_factory=set)
    is_judged: bool = False


@dataclass(frozen=True, slots=True)
class Crossing:
    """A lead became an MQL: under which clause, with which score, and why."""

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
    """`last_received_at`: the greatest that was applied; `history`: its activities, where they may be folded anew."""

    lead_id: str
    version: int
    last_received_at: datetime | None
    facts: Facts
    mqls: list[Mql] = field(default_factory=list)
    standings: list[Standing] = field(default_factory=list)
    displayed: dict[str, Displayed] = field(default_factory=dict)
    history: list[ActivityRecorded] | None = None
    attributes: dict[str, Scalar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.attributes = values(self.facts)


def apply(lead: Lead, activity: ActivityRecorded) -> list[Crossing]:
    """Take one activity that the lead did not have, and judge the lead unless the activity is too old for that."""
    lead.last_received_at = _later(lead.last_received_at, activity.received_at)
    if lead.history is not None:
        lead.history.append(activity)
    has_learnt = learn(lead.facts, activity)
    if has_learnt:
        lead.attributes = values(lead.facts)
    for standing in lead.standings:
        _take(lead, standing, activity, has_learnt=has_learnt)
    return [
        crossing
        for standing in lead.standings
        if is_fresh(standing.card, activity)
        for crossing in _judge(lead, standing)
    ]


def fold_anew(lead: Lead, cards: Iterable[Card], version: int) -> None:
    """Score the lead's whole history under these scorecards."""
    if lead.history is None:
        raise ValueError(f"{lead.lead_id}: no history at hand to fold")
    lead.version = version
    lead.standings = []
    for card in cards:
        cycle = current_cycle(lead.mqls, card.product, card.motion)
        tally = fold(card, lead.history, cycle_started_at=cycle.started_at)
        lead.standings.append(Standing(card, tally, cycle))


def absorb(lead: Lead, other: Lead, received_at: datetime) -> None:
    """The other lead was the same person: its activities, facts and MQLs are this one's, which is to be folded anew."""
    if lead.history is None or other.history is None:
        raise ValueError(f"{lead.lead_id}: a merge needs both histories")
    lead.history += other.history
    lead.facts = joined(lead.facts, other.facts)
    lead.attributes = values(lead.facts)
    lead.mqls += other.mqls
    for at in (other.last_received_at, received_at):
        lead.last_received_at = _later(lead.last_received_at, at)
    for card_id, displayed in other.displayed.items():
        mine = lead.displayed.get(card_id)
        if mine is None or mine.version < displayed.version:
            lead.displayed[card_id] = displayed


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


def read(lead: Lead, standing: Standing) -> Reading:
    """The score as of the last that was received; the rules that changed since the last reading are asked again."""
    if lead.last_received_at is None:
        raise ValueError(f"{lead.lead_id}: nothing was received of it yet")
    card, day = standing.card, day_of(lead.last_received_at, standing.card.zone)
    if day != standing.day:
        standing.by_rule = earn(card, standing.tally, lead.attributes, day)
    elif standing.changed or standing.reading is None:
        for place in standing.changed:
            rule = card.rules[place]
            standing.by_rule[place] = earned(card, rule, standing.tally.counts.get(rule.key), lead.attributes, day)
    else:
        return standing.reading
    standing.day = day
    standing.changed.clear()
    standing.reading = total(card, standing.by_rule)
    return standing.reading


def display(lead: Lead, standing: Standing) -> Displayed | None:
    """What is to be said about the score now, if it is not what was said last."""
    said = lead.displayed.get(standing.card.id)
    reading = read(lead, standing)
    if said is not None and said.reading == reading:
        return None
    lead.displayed[standing.card.id] = Displayed(reading, said.version + 1 if said else 1)
    return lead.displayed[standing.card.id]


def _take(lead: Lead, standing: Standing, activity: ActivityRecorded, *, has_learnt: bool) -> None:
    """Count the activity; what it may have changed is to be read, and judged, again."""
    raised = len(standing.tally.seen)
    met = take(standing.card, standing.tally, activity, standing.cycle.started_at)
    standing.changed.update(rule.place for rule in met)
    if has_learnt:
        standing.changed.update(rule.place for rule in standing.card.rules if not rule.kinds)
    if standing.changed or len(standing.tally.seen) != raised or standing.cycle.started_at is not None:
        standing.is_judged = False
    elif standing.is_judged and lead.last_received_at is not None:
        standing.is_judged = day_of(lead.last_received_at, standing.card.zone) == standing.day


def _judge(lead: Lead, standing: Standing) -> Iterator[Crossing]:
    if standing.is_judged or standing.cycle.is_open or lead.last_received_at is None:
        return
    standing.is_judged = True
    card, cycle = standing.card, standing.cycle
    reading = read(lead, standing)
    qualification = judge(card, standing.tally, reading, cycle, lead.last_received_at)
    if qualification is None:
        return
    number = cycle.number
    mql = Mql(mql_id(lead.lead_id, card.product, card.motion, number), lead.lead_id, card.product, card.motion, number)
    _open(lead, mql)
    lines = explain(card, standing.by_rule)
    yield Crossing(lead.lead_id, card, lead.version, mql, qualification, reading, lines, dict(lead.attributes))


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
