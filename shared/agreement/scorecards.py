"""How leads are scored, put into buckets and qualified."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from shared.agreement.conditions import AllOf, Condition, Facts, When, fields_of
from shared.agreement.durations import ExactDuration, HalfLife
from shared.agreement.examples import Example
from shared.agreement.flaws import Fault, listed, refuse, unknown
from shared.agreement.parts import Choice, Listed, Named, NamedChoices, Part, Points, Slug, Some

Motion = Literal["new_business", "expansion", "renewal"]
Window = Literal["hour", "day", "week", "month"]

MAX_DIMENSIONS = 20
NUMERIC = ("gt", "gte", "lt", "lte", "between")


class Limit(Part):
    """An activity rule counts at most so often in each aligned window of the agreement's zone (ISO weeks)."""

    times: int = Field(ge=1, le=1_000_000)
    per: Window


class Rule(Part):
    """Points for a fact, or for each activity of a kind."""

    later: ClassVar = frozenset({"half_life", "decay", "expires", "expires_after", "linear", "once"})
    id: Slug
    when: When
    points: Points
    limit: Limit | None = None

    @property
    def points_hundredths(self) -> int:
        """The points in the unit that scores are exact in."""
        return round(self.points * 100)

    @model_validator(mode="after")
    def _limits_activities(self) -> Self:
        if self.limit and not self.when.activities:
            refuse([Fault(("limit",), "a fact counts once: a limit is for conditions with `activity`")])
        if not self.points:
            refuse([Fault(("points",), "0: a rule without points does nothing")])
        return self


class Bounded(Part):
    """A sum that is kept between a floor and a cap when it is read."""

    cap: Points
    floor: Points | None = None

    @model_validator(mode="after")
    def _cap_is_over_floor(self) -> Self:
        if self.floor is not None and self.cap < self.floor:
            refuse([Fault(("cap",), f"{self.cap:g} is below the floor, {self.floor:g}")])
        return self


class Group(Bounded):
    later: ClassVar = frozenset({"half_life", "decay", "expires", "linear"})
    id: Slug
    rules: Listed[Rule]


class Dimension(Bounded):
    """The net sum of its groups, never below 0 unless a floor says so."""

    later: ClassVar = frozenset({"decay", "expires", "linear", "half_lives"})
    id: Slug
    floor: Points | None = 0.0
    half_life: HalfLife | None = None
    groups: Listed[Group]


class Bucket(Choice):
    """Where a score puts a lead: who owns it there, and what comes next. `when` reads dimensions."""

    owner: Literal["marketing", "sales"]
    next_step: Slug


@dataclass(frozen=True, slots=True)
class Clause:
    """One way to qualify: thresholds of dimensions, a raised hand (an activity of this cycle), or both together."""

    raised_hand: Condition | None
    thresholds: Condition

    def __str__(self) -> str:
        parts = (str(part) for part in (self.raised_hand, self.thresholds) if part is not None)
        return " and ".join(part for part in parts if part)


class Mql(Part):
    """When a lead qualifies: any clause will do. Activity older than `qualify_max_age` scores, and qualifies nobody."""

    later: ClassVar = frozenset({"all", "not", "disqualify", "explore"})
    any: Annotated[tuple[When, ...], Some]
    qualify_max_age: ExactDuration


class Requalify(Part):
    """When a recycled lead may qualify again: after a time, or by points gained since its cycle ended."""

    after: ExactDuration
    or_points: Points | None = Field(default=None, gt=0)


def _few(dimensions: tuple[Dimension, ...]) -> tuple[Dimension, ...]:
    if len(dimensions) > MAX_DIMENSIONS:
        raise ValueError(f"{len(dimensions)} dimensions; at most {MAX_DIMENSIONS}")
    return dimensions


class Scorecard(Part):
    """One score, of a product and a motion."""

    later: ClassVar = frozenset(
        {"accounts", "disqualification", "disqualify", "experiment", "experiments", "explore", "grades", "on_publish"}
        | {"subject", "rollup"}
    )
    id: Slug
    product: Slug
    motion: Motion
    dimensions: Annotated[Named[Dimension], AfterValidator(_few)]
    buckets: NamedChoices[Bucket]
    mql: Mql
    requalify: Requalify | None = None
    examples: tuple[Example, ...] = ()

    @cached_property
    def clauses(self) -> tuple[Clause, ...]:
        """The ways to qualify, in the order of the text."""
        return tuple(_clause(condition, self.dimension_ids) for condition in self.mql.any)

    @cached_property
    def dimension_ids(self) -> frozenset[str]:
        return frozenset(dimension.id for dimension in self.dimensions)

    def bucket_for(self, dimensions: Facts) -> Bucket:
        """The first bucket whose condition the dimensions meet."""
        return next(bucket for bucket in self.buckets if bucket.applies(dimensions))

    @model_validator(mode="after")
    def _reads_its_dimensions(self) -> Self:
        faults = [
            Fault(("buckets", place, "when", *fault.steps), fault.message)
            for place, bucket in enumerate(self.buckets)
            if bucket.when is not None
            for fault in self._misread(bucket.when, may_be_activity=False)
        ]
        faults += [
            Fault(("mql", "any", place, *fault.steps), fault.message)
            for place, condition in enumerate(self.mql.any)
            for fault in self._misread(condition, may_be_activity=True)
        ]
        if faults:
            refuse(faults)
        return self

    def _misread(self, condition: Condition, *, may_be_activity: bool) -> Iterator[Fault]:
        if condition.activities and not may_be_activity:
            yield Fault(("activity",), "a bucket is about dimensions; a raised hand is a clause of `mql`")
        for test in condition.tests():
            if test.field in self.dimension_ids:
                if test.operator not in NUMERIC:
                    yield Fault((test.field,), f"a dimension is compared by {listed(NUMERIC)}")
            elif not condition.activities or not may_be_activity:
                yield Fault((test.field,), unknown("dimension", test.field, sorted(self.dimension_ids)))


def _clause(condition: Condition, dimension_ids: Set[str]) -> Clause:
    """A clause's thresholds apart from its raised hand's properties."""
    parts = condition.term.parts if isinstance(condition.term, AllOf) else (condition.term,)
    thresholds = tuple(part for part in parts if fields_of(part) & dimension_ids)
    properties = tuple(part for part in parts if part not in thresholds)
    raised_hand = Condition(condition.activities, AllOf(properties)) if condition.activities else None
    return Clause(raised_hand, Condition((), AllOf(thresholds)))
