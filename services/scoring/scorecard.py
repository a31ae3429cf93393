"""A scorecard made ready to be folded: rules by kind of activity, points in hundredths, decay as a table.

Made once for each version of the agreement; what it holds never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from functools import lru_cache
from typing import TypeVar
from zoneinfo import ZoneInfo

from shared.agreement.durations import Duration
from shared.agreement.model import Agreement
from shared.agreement.scorecards import Bounded, Scorecard
from shared.agreement.scorecards import Clause as AgreedClause
from shared.agreement.scorecards import Rule as AgreedRule
from shared.events import Scalar

ONE = 2**32  # a decay factor of 1
PRECISION = Context(prec=40)
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
class Dimension:
    """`decay[n]`: the factor after n whole days, in parts of `ONE`; past its end nothing is left. None: no decay."""

    id: str
    bounds: Bounds
    decay: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Group:
    id: str
    dimension: int
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class Rule:
    """`points` (hundredths) for each matching activity of `kinds`; without kinds: once, while the attributes match.

    `key` is the rule's name in a tally, `place` and `group` are its positions in the card. At most `times` count in a
    window; `window` names the one a bucket lies in, None: each is its own. Buckets are days, or, for a limit per hour,
    hours.
    """

    key: str
    id: str
    place: int
    group: int
    points: int
    kinds: tuple[str, ...]
    matches: Matches
    times: int | None
    window: Callable[[int], int] | None
    is_hourly: bool


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
    """A scorecard of one version of the agreement."""

    id: str
    product: str
    motion: str
    zone: ZoneInfo
    lookback_days: int
    dimensions: tuple[Dimension, ...]
    groups: tuple[Group, ...]
    rules: tuple[Rule, ...]
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
    groups = [
        (place, dimension, group) for place, dimension in enumerate(scorecard.dimensions) for group in dimension.groups
    ]
    rules = [
        (position, f"{dimension.id}.{group.id}.{rule.id}", rule)
        for position, (_, dimension, group) in enumerate(groups)
        for rule in group.rules
    ]
    compiled = tuple(_rule(place, group, key, rule) for place, (group, key, rule) in enumerate(rules))
    requalify = scorecard.requalify
    return Card(
        id=scorecard.id,
        product=scorecard.product,
        motion=scorecard.motion,
        zone=agreement.zone,
        lookback_days=agreement.lookback.timedelta.days,
        dimensions=tuple(
            Dimension(dimension.id, _bounds(dimension), _decay(dimension.half_life))
            for dimension in scorecard.dimensions
        ),
        groups=tuple(Group(group.id, place, _bounds(group)) for place, _, group in groups),
        rules=compiled,
        rules_by_kind=_by_kind((kind, rule) for rule in compiled for kind in rule.kinds),
        hands_by_kind=_by_kind(_raised_hands(scorecard)),
        buckets=tuple((bucket.id, bucket.applies) for bucket in scorecard.buckets),
        clauses=tuple(_clause(clause) for clause in scorecard.clauses),
        qualify_max_age=scorecard.mql.qualify_max_age.timedelta,
        requalify_after=requalify.after.timedelta if requalify else None,
        requalify_points=_hundredths(requalify.or_points) if requalify else None,
    )


def _rule(place: int, group: int, key: str, rule: AgreedRule) -> Rule:
    per = rule.limit.per if rule.limit else "day"
    return Rule(
        key=key,
        id=rule.id,
        place=place,
        group=group,
        points=rule.points_hundredths,
        kinds=rule.when.activities,
        matches=rule.when.holds,
        times=rule.limit.times if rule.limit else None,
        window=WINDOWS[per],
        is_hourly=per == "hour",
    )


def _clause(clause: AgreedClause) -> Clause:
    hand = clause.raised_hand
    return Clause(str(clause), None if hand is None else str(hand), clause.thresholds.holds)


def _raised_hands(scorecard: Scorecard) -> Iterator[tuple[str, RaisedHand]]:
    hands = {str(clause.raised_hand): clause.raised_hand for clause in scorecard.clauses if clause.raised_hand}
    for key, hand in hands.items():
        for kind in hand.activities:
            yield kind, RaisedHand(key, hand.holds)


def _by_kind(pairs: Iterable[tuple[str, T]]) -> dict[str, tuple[T, ...]]:
    found: dict[str, tuple[T, ...]] = {}
    for kind, part in pairs:
        found[kind] = (*found.get(kind, ()), part)
    return found


def _bounds(part: Bounded) -> Bounds:
    return Bounds(_hundredths(part.cap), _hundredths(part.floor))


def _hundredths(points: float | None) -> int | None:
    return None if points is None else round(points * 100)


def _decay(half_life: Duration | None) -> tuple[int, ...] | None:
    return None if half_life is None else decay_table(half_life.timedelta)


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
def decay_table(half_life: timedelta) -> tuple[int, ...]:
    """2 ** (-days / half life), in parts of `ONE`, until nothing is left. Decimal: the same on every machine."""
    half_life_days = PRECISION.divide(Decimal(int(half_life.total_seconds())), Decimal(86400))
    table: list[int] = []
    while not table or table[-1]:
        exponent = PRECISION.divide(Decimal(-len(table)), half_life_days)
        table.append(int(PRECISION.multiply(PRECISION.power(Decimal(2), exponent), Decimal(ONE)).to_integral_value()))
    return tuple(table)
