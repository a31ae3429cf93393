"""A scorecard made ready to be folded: rules by kind of activity, points in hundredths, decay as a table.

Made once for each version of the agreement; what it holds never changes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from functools import lru_cache
from typing import TypeVar
from zoneinfo import ZoneInfo

from shared.agreement.conditions import ALWAYS, AllOf, AnyOf, Not, Term, Test
from shared.agreement.model import Agreement
from shared.agreement.scorecards import Bounded, Scorecard
from shared.agreement.scorecards import Clause as AgreedClause
from shared.agreement.scorecards import Dimension as AgreedDimension
from shared.agreement.scorecards import Group as AgreedGroup
from shared.agreement.scorecards import Rule as AgreedRule
from shared.events import Scalar

ONE_BITS, STEP_BITS = 32, 128
ONE = 1 << ONE_BITS  # a decay factor of 1
HALF = 2 ** (STEP_BITS - ONE_BITS - 1)  # half of the last digit
PRECISION = Context(prec=50)
EPOCH_DAY = date(1970, 1, 1).toordinal()
QUARTER_SECONDS = 900  # every zone's offset is a multiple of it, so that a quarter of an hour lies in one local hour

T = TypeVar("T")
Matches = Callable[[Mapping[str, Scalar]], bool]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a net sum is cut, in hundredths."""

    cap: int | None
    floor: int | None


@dataclass(frozen=True, slots=True)
class Rule:
    """`points` (hundredths) for each matching activity of `kinds`; without kinds: once, while the attributes match.

    `key` is the rule's name in a tally, `place` its position in the card. At most `times` count in a window; `window`
    names the one a bucket lies in, None: each is its own. Buckets are days, or, for a limit per hour, hours. Those
    older than `lookback_days` count for nothing; `decay[n]`: the factor after n whole days, in parts of `ONE`; past its
    end nothing is left. None: no decay.
    """

    key: str
    id: str
    place: int
    dimension: str
    points: int
    kinds: tuple[str, ...]
    matches: Matches
    times: int | None
    window: Callable[[int], int] | None
    is_hourly: bool
    lookback_days: int
    decay: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Group:
    id: str
    bounds: Bounds
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Dimension:
    id: str
    bounds: Bounds
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class RaisedHand:
    """An activity of the current cycle that a clause asks for."""

    key: str
    matches: Matches


@dataclass(frozen=True, slots=True)
class Clause:
    """One way to qualify: thresholds of the dimensions (in points), a raised hand, or both."""

    name: str
    raised_hand: str | None
    holds: Matches


@dataclass(frozen=True, slots=True)
class Card:
    """A scorecard of one version of the agreement. `factual` and `fading`: the dimensions that attributes, and days,
    change without an activity that counts. `fields`: the attributes that anything in the agreement asks about."""

    id: str
    product: str
    motion: str
    zone: ZoneInfo
    dimensions: tuple[Dimension, ...]
    rules: tuple[Rule, ...]
    factual: frozenset[str]
    fading: frozenset[str]
    fields: frozenset[str]
    rules_by_kind: Mapping[str, tuple[Rule, ...]]
    hands_by_kind: Mapping[str, tuple[RaisedHand, ...]]
    buckets: tuple[tuple[str, Matches], ...]
    clauses: tuple[Clause, ...]
    qualify_max_age: timedelta
    requalify_after: timedelta | None
    requalify_points: int | None


@lru_cache(maxsize=64)
def cards_of(agreement: Agreement) -> tuple[Card, ...]:
    """The scorecards of an agreement, in its order."""
    return tuple(_card(agreement, scorecard) for scorecard in agreement.scorecards)


def bucket_of(at: datetime, zone: ZoneInfo) -> tuple[int, int]:
    """The local day and hour of an instant: days since 1970-01-01, and 24 times that plus the hour."""
    return _quarter(int(at.timestamp()) // QUARTER_SECONDS, zone)


def day_of(at: datetime, zone: ZoneInfo) -> int:
    """The local day of an instant."""
    return bucket_of(at, zone)[0]


def _card(agreement: Agreement, scorecard: Scorecard) -> Card:
    places = itertools.count()
    lookback_days = agreement.lookback.timedelta.days
    dimensions = tuple(_dimension(dimension, places, lookback_days) for dimension in scorecard.dimensions)
    rules = tuple(rule for dimension in dimensions for group in dimension.groups for rule in group.rules)
    requalify = scorecard.requalify
    return Card(
        id=scorecard.id,
        product=scorecard.product,
        motion=scorecard.motion,
        zone=agreement.zone,
        dimensions=dimensions,
        rules=rules,
        factual=frozenset(rule.dimension for rule in rules if not rule.kinds),
        fading=frozenset(rule.dimension for rule in rules if rule.kinds),
        fields=agreement.fields,
        rules_by_kind=_by_kind((kind, rule) for rule in rules for kind in rule.kinds),
        hands_by_kind=_by_kind(_raised_hands(scorecard)),
        buckets=tuple((bucket.id, asking(bucket.when.term if bucket.when else ALWAYS)) for bucket in scorecard.buckets),
        clauses=tuple(_clause(clause) for clause in scorecard.clauses),
        qualify_max_age=scorecard.mql.qualify_max_age.timedelta,
        requalify_after=requalify.after.timedelta if requalify else None,
        requalify_points=_hundredths(requalify.or_points) if requalify else None,
    )


def _dimension(dimension: AgreedDimension, places: Iterator[int], lookback_days: int) -> Dimension:
    decay = None if dimension.half_life is None else decay_table(dimension.half_life.timedelta, lookback_days)

    def compiled(group: AgreedGroup, rule: AgreedRule) -> Rule:
        per = rule.limit.per if rule.limit else "day"
        return Rule(
            key=f"{dimension.id}.{group.id}.{rule.id}",
            id=rule.id,
            place=next(places),
            dimension=dimension.id,
            points=rule.points_hundredths,
            kinds=rule.when.activities,
            matches=asking(rule.when.term),
            times=rule.limit.times if rule.limit else None,
            window=WINDOWS[per],
            is_hourly=per == "hour",
            lookback_days=lookback_days,
            decay=decay,
        )

    groups = (
        Group(group.id, _bounds(group), tuple(compiled(group, rule) for rule in group.rules))
        for group in dimension.groups
    )
    return Dimension(dimension.id, _bounds(dimension), tuple(groups))


def _clause(clause: AgreedClause) -> Clause:
    hand = clause.raised_hand
    return Clause(str(clause), None if hand is None else str(hand), asking(clause.thresholds.term))


def _raised_hands(scorecard: Scorecard) -> Iterator[tuple[str, RaisedHand]]:
    hands = {str(clause.raised_hand): clause.raised_hand for clause in scorecard.clauses if clause.raised_hand}
    for key, hand in hands.items():
        for kind in hand.activities:
            yield kind, RaisedHand(key, asking(hand.term))


def asking(term: Term) -> Matches:
    """The term as nested functions: it answers in half the time, and every activity asks several."""
    match term:
        case Test(field=field, check=check):
            return lambda facts: check(facts.get(field))
        case Not(part=part):
            holds = asking(part)
            return lambda facts: not holds(facts)
        case AllOf(parts=parts):
            return _all([asking(part) for part in parts])
        case AnyOf(parts=parts):
            return _any([asking(part) for part in parts])


def _all(parts: Sequence[Matches]) -> Matches:
    def holds(facts: Mapping[str, Scalar]) -> bool:
        for part in parts:  # noqa: SIM110 - a generator for each question costs as much as the questions
            if not part(facts):
                return False
        return True

    return holds


def _any(parts: Sequence[Matches]) -> Matches:
    def holds(facts: Mapping[str, Scalar]) -> bool:
        for part in parts:  # noqa: SIM110
            if part(facts):
                return True
        return False

    return holds


def _by_kind(pairs: Iterable[tuple[str, T]]) -> dict[str, tuple[T, ...]]:
    found: dict[str, tuple[T, ...]] = {}
    for kind, part in pairs:
        found[kind] = (*found.get(kind, ()), part)
    return found


def _bounds(part: Bounded) -> Bounds:
    return Bounds(_hundredths(part.cap), _hundredths(part.floor))


def _hundredths(points: float | None) -> int | None:
    return None if points is None else round(points * 100)


def _week(day: int) -> int:
    return (day + 3) // 7  # 1970-01-01 was a Thursday, and ISO weeks begin on Monday


@lru_cache(maxsize=10_000)
def _month(day: int) -> int:
    local = date.fromordinal(day + EPOCH_DAY)
    return local.year * 12 + local.month


WINDOWS: Mapping[str, Callable[[int], int] | None] = {"hour": None, "day": None, "week": _week, "month": _month}


@lru_cache(maxsize=100_000)
def _quarter(number: int, zone: ZoneInfo) -> tuple[int, int]:
    local = datetime.fromtimestamp(number * QUARTER_SECONDS, UTC).astimezone(zone)
    day = local.date().toordinal() - EPOCH_DAY
    return day, day * 24 + local.hour


@lru_cache(maxsize=64)
def decay_table(half_life: timedelta, lookback_days: int) -> tuple[int, ...]:
    """2 ** (-days / half life), in parts of `ONE`, until nothing is left or the lookback ends.

    Integers multiplied day by day: the same on every machine, and 40,000 days take 10 ms. Of their 128 bits the steps
    cost the last 17, and `ONE` needs the first 32.
    """
    half_life_days = PRECISION.divide(Decimal(int(half_life.total_seconds())), Decimal(86400))
    a_day = PRECISION.power(Decimal(2), PRECISION.divide(Decimal(-1), half_life_days))
    factor = int(PRECISION.multiply(a_day, Decimal(2**STEP_BITS)).to_integral_value())
    left, table = 2**STEP_BITS, [ONE]
    while table[-1] and len(table) <= lookback_days:
        left = left * factor >> STEP_BITS
        table.append((left + HALF) >> (STEP_BITS - ONE_BITS))
    return tuple(table)
