"""The score of a lead: a pure fold over its activities under one scorecard (law 4).

What is kept of all activities is small and exact: how many fell on each day (or hour) for each rule. Such counts
commute, so duplicates aside nothing about their order, their batches or the merges between them can change them. The
rest happens when they are read: `lookback`, limits, decay, then caps and floors on the net sums. Points are integers
of hundredths; decay goes by whole days from a fixed-point table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

import msgspec

from services.scoring.scorecard import ONE, Bounds, Card, Dimension, RaisedHand, Rule, bucket_of, day_of
from shared.events import ActivityRecorded, ExplanationLine, Scalar

Counts = dict[str, dict[int, int]]  # rule -> day (or hour) of the agreement's zone -> activities

Bound = Literal["group_cap", "group_floor", "dimension_cap", "dimension_floor"]

GROUP_BOUNDS: tuple[Bound, Bound] = ("group_cap", "group_floor")
DIMENSION_BOUNDS: tuple[Bound, Bound] = ("dimension_cap", "dimension_floor")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MAX_FACTS = 1000  # a public write key can make up names without end, and every batch reads all of them


class Fact(NamedTuple):
    """What is believed about one attribute, and why: of two, the later one counts, then the greater activity id.

    The agreement does not rank sources yet; their rank will stand between the two.
    """

    value: Scalar
    occurred_us: int
    activity_id: str


Facts = dict[str, Fact]


class Tally(msgspec.Struct):
    """All that one scorecard keeps of a lead's activities.

    `counts`: every activity. The other two see the current cycle only, and only what was fresh when it was received:
    `gained`: counts since the last cycle ended (nothing in the first cycle); `seen`: how often each hand was
    raised that a clause of the MQL asks for.
    """

    counts: Counts = {}
    gained: Counts = {}
    seen: dict[str, int] = {}


class Earned(NamedTuple):
    """What a rule gives on a day: how many activities it counts, and hundredths of points after limits and decay."""

    number: int
    points: int


class Reading(msgspec.Struct, frozen=True):
    """A score as it stands on a day, in hundredths."""

    score: int
    dimensions: dict[str, int]
    bucket: str


def fold(card: Card, activities: Iterable[ActivityRecorded], *, cycle_started_at: datetime | None = None) -> Tally:
    """The tally of these activities (each once, in any order); the current cycle saw what came after its start."""
    tally = Tally(counts={}, gained={}, seen={})
    for activity in activities:
        take(card, tally, activity, cycle_started_at)
    return tally


def take(card: Card, tally: Tally, activity: ActivityRecorded, cycle_started_at: datetime | None) -> list[Rule]:
    """Add one activity to a tally, in place; the rules that it met."""
    met = [rule for rule in card.rules_by_kind.get(activity.kind, ()) if rule.matches(activity.properties)]
    hands = raised_by(card, activity)
    if not met and not hands:
        return met
    day, hour = bucket_of(activity.occurred_at, card.zone)
    for rule in met:
        _count(tally.counts, rule.key, hour if rule.is_hourly else day)
    if not is_of_cycle(card, activity, cycle_started_at):
        return met
    if cycle_started_at is not None:
        for rule in met:
            _count(tally.gained, rule.key, hour if rule.is_hourly else day)
    for hand in hands:
        tally.seen[hand.key] = tally.seen.get(hand.key, 0) + 1
    return met


def is_fresh(card: Card, activity: ActivityRecorded) -> bool:
    """Whether it may qualify a lead: not older than `qualify_max_age` when received, or told to count at any age."""
    return activity.qualify_any_age or activity.received_at - activity.occurred_at <= card.qualify_max_age


def is_of_cycle(card: Card, activity: ActivityRecorded, cycle_started_at: datetime | None) -> bool:
    """Whether the current cycle sees it: received after the cycle's start, and fresh then."""
    return (cycle_started_at is None or activity.received_at > cycle_started_at) and is_fresh(card, activity)


def raised_by(card: Card, activity: ActivityRecorded) -> list[RaisedHand]:
    """The hands that this activity raises."""
    return [hand for hand in card.hands_by_kind.get(activity.kind, ()) if hand.matches(activity.properties)]


def add(one: Tally, other: Tally) -> Tally:
    """The tally of both sets of activities, which share none and were counted for the same cycle."""
    seen = {key: one.seen.get(key, 0) + other.seen.get(key, 0) for key in one.seen | other.seen}
    return Tally(counts=_added(one.counts, other.counts), gained=_added(one.gained, other.gained), seen=seen)


def learn(facts: Facts, activity: ActivityRecorded) -> bool:
    """Take over what the activity says about the lead, in place; whether anything changed."""
    if not activity.attributes:
        return False
    occurred_us = (activity.occurred_at - EPOCH) // MICROSECOND
    changed = False
    for name, value in activity.attributes.items():
        fact = Fact(value, occurred_us, activity.activity_id)
        known = facts.get(name)
        if known is None or (known.occurred_us, known.activity_id) < (fact.occurred_us, fact.activity_id):
            facts[name] = fact
            # To a condition, true is not 1.
            changed = changed or known is None or (type(known.value), known.value) != (type(value), value)
    _bound(facts)
    return changed


def joined(one: Facts, other: Facts) -> Facts:
    """What is believed of a lead that was thought to be two."""
    facts = dict(one)
    for name, fact in other.items():
        known = facts.get(name)
        if known is None or (known.occurred_us, known.activity_id) < (fact.occurred_us, fact.activity_id):
            facts[name] = fact
    _bound(facts)
    return facts


def values(facts: Facts) -> dict[str, Scalar]:
    """The attributes without their origin."""
    return {name: fact.value for name, fact in facts.items()}


def read(card: Card, tally: Tally, facts: Facts, as_of: datetime) -> Reading:
    """The score at an instant."""
    attributes, day = values(facts), day_of(as_of, card.zone)
    return reading(card, {dimension.id: net(dimension, tally, attributes, day) for dimension in card.dimensions})


def net(dimension: Dimension, tally: Tally, attributes: Mapping[str, Scalar], day: int) -> int:
    """What a dimension comes to on a day: bound the groups, then their sum."""
    given = 0
    for group in dimension.groups:
        given += _bounded(group.bounds, sum([earned(rule, tally, attributes, day).points for rule in group.rules]))
    return _bounded(dimension.bounds, given)


def reading(card: Card, dimensions: dict[str, int]) -> Reading:
    """The score is the sum of its dimensions."""
    return Reading(sum(dimensions.values()), dimensions, bucket(card, dimensions))


def earn(card: Card, tally: Tally, attributes: Mapping[str, Scalar], day: int) -> list[Earned]:
    """What each rule of the card gives on a day, in the card's order."""
    return [earned(rule, tally, attributes, day) for rule in card.rules]


def earned(rule: Rule, tally: Tally, attributes: Mapping[str, Scalar], day: int) -> Earned:
    """What one rule gives on a day."""
    if not rule.kinds:
        return Earned(1, rule.points) if rule.matches(attributes) else NOTHING
    buckets = tally.counts.get(rule.key)
    return _weighed(rule, buckets, day) if buckets else NOTHING


def bucket(card: Card, dimensions: Mapping[str, int]) -> str:
    """The first bucket of the card whose condition the dimensions meet."""
    known = points(dimensions)
    return next(name for name, holds in card.buckets if holds(known))


def points(dimensions: Mapping[str, int]) -> dict[str, Scalar]:
    """Hundredths as the agreement's conditions and the world read them."""
    return {name: value / 100 for name, value in dimensions.items()}


def explain(card: Card, by_rule: Sequence[Earned]) -> list[ExplanationLine]:
    """Every rule that gave something, and what each bound took or added: a dimension's lines sum to it exactly."""
    lines: list[ExplanationLine] = []
    for dimension in card.dimensions:
        given = 0
        for group in dimension.groups:
            got = [by_rule[rule.place] for rule in group.rules]
            lines += [_rule_line(group.id, rule, one) for rule, one in zip(group.rules, got, strict=True) if one.number]
            sum_of_rules = sum(one.points for one in got)
            lines += _bound_lines(GROUP_BOUNDS, group.bounds, sum_of_rules, dimension.id, group.id)
            given += _bounded(group.bounds, sum_of_rules)
        lines += _bound_lines(DIMENSION_BOUNDS, dimension.bounds, given, dimension.id, None)
    return lines


def gained(card: Card, tally: Tally) -> int:
    """Hundredths that activities of this cycle earned by rules that give: after limits, before decay and caps."""
    giving = [rule for rule in card.rules if rule.points > 0 and rule.key in tally.gained]
    return sum(rule.points * count for rule in giving for _, count in _limited(rule, tally.gained[rule.key]))


NOTHING = Earned(0, 0)


def _bound(facts: Facts) -> None:
    """Keep the first names of all that were ever told: the same ones, in whichever order they came."""
    if len(facts) > MAX_FACTS:
        for name in sorted(facts)[MAX_FACTS:]:
            del facts[name]


def _count(counts: Counts, rule: str, bucket: int) -> None:
    buckets = counts.get(rule)
    if buckets is None:
        counts[rule] = {bucket: 1}
    else:
        buckets[bucket] = buckets.get(bucket, 0) + 1


def _added(one: Counts, other: Counts) -> Counts:
    summed = {rule: dict(buckets) for rule, buckets in one.items()}
    for rule, buckets in other.items():
        mine = summed.setdefault(rule, {})
        for bucket, count in buckets.items():
            mine[bucket] = mine.get(bucket, 0) + count
    return summed


def _weighed(rule: Rule, buckets: Mapping[int, int], day: int) -> Earned:
    """What the counts of an activity rule give: the sum of their decay factors (`ONE` each without decay)."""
    per_day = 24 if rule.is_hourly else 1
    decay = rule.decay
    number = weight = 0
    for bucket, count in _limited(rule, buckets, (day - rule.lookback_days) * per_day):
        number += count
        if decay is None:
            weight += count * ONE
        elif (age := max(0, day - bucket // per_day)) < len(decay):
            weight += count * decay[age]
    return Earned(number, _rounded(rule.points * weight)) if number else NOTHING


def _limited(rule: Rule, buckets: Mapping[int, int], oldest: int | None = None) -> Iterator[tuple[int, int]]:
    """The counts that the rule's limit leaves, not before a bucket, earliest first in each window."""
    used: dict[int, int] = {}
    for bucket in buckets if rule.window is None else sorted(buckets):
        if oldest is not None and bucket < oldest:
            continue
        count = buckets[bucket]
        if rule.times is not None:
            window = bucket if rule.window is None else rule.window(bucket)
            count = min(count, rule.times - used.get(window, 0))
            used[window] = used.get(window, 0) + count
        yield bucket, count


def _rounded(weighted: int) -> int:
    """Hundredths from weighted hundredths; halves go away from zero."""
    size = (2 * abs(weighted) + ONE) // (2 * ONE)
    return size if weighted >= 0 else -size


def _bounded(bounds: Bounds, net: int) -> int:
    if bounds.cap is not None and net > bounds.cap:
        return bounds.cap
    if bounds.floor is not None and net < bounds.floor:
        return bounds.floor
    return net


def _rule_line(group: str, rule: Rule, got: Earned) -> ExplanationLine:
    return ExplanationLine(
        kind="rule", dimension=rule.dimension, group=group, rule=rule.id, count=got.number, points=got.points / 100
    )


def _bound_lines(
    kinds: tuple[Bound, Bound], bounds: Bounds, net: int, dimension: str, group: str | None
) -> list[ExplanationLine]:
    difference = _bounded(bounds, net) - net
    if not difference:
        return []
    kind = kinds[0] if difference < 0 else kinds[1]
    return [ExplanationLine(kind=kind, dimension=dimension, group=group, points=difference / 100)]
