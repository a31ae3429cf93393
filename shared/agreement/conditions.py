"""Conditions: parsed once, then asked about a flat mapping of scalars, as scoring and routing do for every lead.

    {company_size: {gte: 200}, country: [US, CA]}      all of these
    {any: [{...}, {...}]}  {all: [...]}  {not: {...}}
    {activity: page_viewed, path: "/pricing*"}         an activity of this kind, with these properties

Types are strict: "about 200" is no number and true is not 1. A comparison with a value that is missing, or of another
type, does not hold (`ne` and `not_in` hold for any other value that is there); nothing ever raises. `eq` and `in` are
exact; `matches` (`*` stands for anything), `starts_with` and `contains` ignore case.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import PlainValidator

from shared.agreement.flaws import Fault, Step, not_yet, refuse, shown, unknown
from shared.agreement.operators import OPERATORS, Check
from shared.agreement.source import Scalar

WORD = re.compile(r"[A-Za-z_$][A-Za-z0-9_.$-]{0,99}", re.ASCII)
LATER_FIELDS = frozenset({"absent", "count", "frequency", "history", "persona", "sum", "within"})
LATER_OPERATORS = frozenset({"count", "newer_than", "older_than", "sum", "within"})

Facts = Mapping[str, Scalar]
Steps = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Test:
    """One comparison of one field."""

    field: str
    operator: str
    operand: object
    check: Check = dataclasses.field(compare=False, repr=False)

    def holds(self, facts: Facts) -> bool:
        return self.check(facts.get(self.field))

    def __str__(self) -> str:
        if self.operator in ("exists", "missing"):
            return f"{self.field} {'exists' if (self.operator == 'exists') is self.operand else 'is missing'}"
        operand = f"[{', '.join(map(str, self.operand))}]" if isinstance(self.operand, tuple) else str(self.operand)
        return f"{self.field} {OPERATORS[self.operator].sign} {operand}"


@dataclass(frozen=True, slots=True)
class AllOf:
    parts: tuple[Term, ...]

    def holds(self, facts: Facts) -> bool:
        return all(part.holds(facts) for part in self.parts)

    def __str__(self) -> str:
        return " and ".join(f"({part})" if isinstance(part, AnyOf) else str(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class AnyOf:
    parts: tuple[Term, ...]

    def holds(self, facts: Facts) -> bool:
        return any(part.holds(facts) for part in self.parts)

    def __str__(self) -> str:
        return " or ".join(f"({part})" if isinstance(part, AllOf) else str(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Not:
    part: Term

    def holds(self, facts: Facts) -> bool:
        return not self.part.holds(facts)

    def __str__(self) -> str:
        return f"not ({self.part})"


Term = Test | AllOf | AnyOf | Not
ALWAYS = AllOf(())


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold. `activities`: of which kinds an activity must be; none: the condition is about facts.

    `term` then reads the activity's properties.
    """

    activities: tuple[str, ...]
    term: Term

    def holds(self, facts: Facts) -> bool:
        """Whether facts (or, of a condition on activities, properties) meet it."""
        return self.term.holds(facts)

    def holds_for(self, kind: str, properties: Facts) -> bool:
        """Whether an activity meets it."""
        return kind in self.activities and self.term.holds(properties)

    def tests(self) -> tuple[Test, ...]:
        """Every single comparison in it."""
        return tuple(_tests(self.term))

    def __str__(self) -> str:
        kinds = f"activity {' or '.join(self.activities)}" if self.activities else ""
        return " with ".join(part for part in (kinds, str(self.term)) if part)


def condition(raw: object) -> Condition:
    """The condition that a mapping describes. Refuses with every fault in it."""
    if not isinstance(raw, Mapping) or not raw:
        refuse([Fault((), f"{shown(raw)}: expected conditions, such as {{company_size: {{gte: 200}}}}")])
    faults: list[Fault] = []
    kinds = _kinds(raw["activity"], faults) if "activity" in raw else ()
    rest = {key: value for key, value in raw.items() if key != "activity"}
    term = _Reader(faults, has_globs=bool(kinds)).all_of(rest, ()) if rest else ALWAYS
    if faults:
        refuse(faults)
    return Condition(kinds, term)


When = Annotated[Condition, PlainValidator(condition)]


def _kinds(raw: object, faults: list[Fault]) -> tuple[str, ...]:
    kinds = raw if isinstance(raw, tuple) else (raw,)
    bad = [kind for kind in kinds if not isinstance(kind, str) or not WORD.fullmatch(kind)]
    faults += [
        Fault(("activity",), f"{shown(kind)}: expected the kind of an activity, such as page_viewed")
        for kind in bad or ([] if kinds else [raw])
    ]
    return tuple(kind for kind in kinds if isinstance(kind, str))


def fields_of(term: Term) -> frozenset[str]:
    """The fields that a term reads."""
    return frozenset(test.field for test in _tests(term))


def _tests(term: Term) -> Iterable[Test]:
    match term:
        case Test():
            yield term
        case Not():
            yield from _tests(term.part)
        case AllOf() | AnyOf():
            for part in term.parts:
                yield from _tests(part)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads terms and collects what is wrong. `has_globs`: a bare `*` is a pattern (properties of activities)."""

    faults: list[Fault]
    has_globs: bool

    def all_of(self, raw: object, steps: Steps) -> Term:
        if not isinstance(raw, Mapping) or not raw:
            return self._fault(steps, f"{shown(raw)}: expected conditions")
        parts = tuple(self._entry(key, value, (*steps, key)) for key, value in raw.items())
        return parts[0] if len(parts) == 1 else AllOf(parts)

    def _entry(self, key: str, value: object, steps: Steps) -> Term:
        if key == "not":
            return Not(self.all_of(value, steps))
        if key in ("any", "all"):
            if not isinstance(value, tuple) or not value:
                return self._fault(steps, f"{shown(value)}: `{key}` takes a list of conditions")
            parts = tuple(self.all_of(part, (*steps, place)) for place, part in enumerate(value))
            return AnyOf(parts) if key == "any" else AllOf(parts)
        if key == "activity":
            return self._fault(steps, "`activity` stands at the top of a condition; several kinds are a list")
        if key in LATER_FIELDS:
            return self._fault(steps, not_yet("condition", key))
        if not WORD.fullmatch(key):
            return self._fault(steps, f"{shown(key)}: expected a field's name (ASCII letters, digits, . _ - $)")
        return self._field(key, value, steps)

    def _field(self, name: str, value: object, steps: Steps) -> Term:
        if isinstance(value, Mapping):
            if not value:
                return self._fault(steps, f"expected a value, or operators: {', '.join(OPERATORS)}")
            parts = tuple(self._test(name, key, operand, (*steps, key)) for key, operand in value.items())
            return parts[0] if len(parts) == 1 else AllOf(parts)
        words = value if isinstance(value, tuple) else (value,)
        if not any(isinstance(word, str) and "*" in word for word in words):
            return self._test(name, "in" if isinstance(value, tuple) else "eq", value, steps)
        if not self.has_globs:
            return self._fault(steps, f"{shown(value)} is compared as it stands; write a pattern as {{matches: ...}}")
        parts = tuple(self._test(name, "matches" if isinstance(word, str) else "eq", word, steps) for word in words)
        return parts[0] if len(parts) == 1 else AnyOf(parts)

    def _test(self, name: str, operator: str, operand: object, steps: Steps) -> Term:
        if operator in LATER_OPERATORS:
            return self._fault(steps, not_yet("operator", operator))
        if operator not in OPERATORS:
            return self._fault(steps, unknown("operator", operator, OPERATORS))
        check = OPERATORS[operator].compile(operand)
        if check is None:
            return self._fault(steps, f"{shown(operand)}: `{operator}` takes {OPERATORS[operator].takes}")
        return Test(name, operator, operand, check)

    def _fault(self, steps: Steps, message: str) -> Term:
        self.faults.append(Fault(steps, message))
        return ALWAYS
