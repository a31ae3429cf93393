"""The operators of conditions. Each makes, from an operand that fits, a check of one value that never raises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeGuard

from shared.agreement.source import Scalar

Check = Callable[[Scalar], bool]

LONGEST_TEXT = 1000
MOST_CHOICES = 1000


class Operator(NamedTuple):
    """`takes`: what the operand must be, for the author; `compile`: the check, None if the operand does not fit."""

    takes: str
    compile: Callable[[object], Check | None]
    sign: str


def is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_TEXT


def is_value(value: object) -> TypeGuard[str | int | float]:
    return is_text(value) or isinstance(value, int | float)


def glob(pattern: str) -> Check:
    """Text that a pattern describes: `*` stands for anything, all else for itself; case does not matter.

    In time linear in the text for every pattern: the text is a stranger's.
    """
    first, *rest = pattern.casefold().split("*")

    def matches(value: Scalar) -> bool:
        if not isinstance(value, str):
            return False
        text = value.casefold()
        if not rest:
            return text == first
        if not text.startswith(first):
            return False
        at = len(first)
        for part in rest[:-1]:
            found = text.find(part, at)
            if found < 0:
                return False
            at = found + len(part)
        return len(text) - at >= len(rest[-1]) and text.endswith(rest[-1])

    return matches


def _equal(operand: object) -> Check | None:
    if not is_value(operand):
        return None
    if isinstance(operand, bool):
        return lambda value: value is operand
    return lambda value: value == operand and not isinstance(value, bool)


def _one_of(operand: object) -> Check | None:
    if not isinstance(operand, tuple) or not 0 < len(operand) <= MOST_CHOICES or not all(map(is_value, operand)):
        return None
    allowed = frozenset((isinstance(choice, bool), choice) for choice in operand)
    return lambda value: (isinstance(value, bool), value) in allowed


def _other_than(compile: Callable[[object], Check | None]) -> Callable[[object], Check | None]:
    def compile_negation(operand: object) -> Check | None:
        check = compile(operand)
        return None if check is None else lambda value: value is not None and not check(value)

    return compile_negation


def _greater(operand: object) -> Check | None:
    return (lambda value: is_number(value) and value > operand) if is_number(operand) else None


def _at_least(operand: object) -> Check | None:
    return (lambda value: is_number(value) and value >= operand) if is_number(operand) else None


def _less(operand: object) -> Check | None:
    return (lambda value: is_number(value) and value < operand) if is_number(operand) else None


def _at_most(operand: object) -> Check | None:
    return (lambda value: is_number(value) and value <= operand) if is_number(operand) else None


def _between(operand: object) -> Check | None:
    if not isinstance(operand, tuple) or len(operand) != 2:
        return None
    low, high = operand
    if not is_number(low) or not is_number(high) or low > high:
        return None
    return lambda value: is_number(value) and low <= value <= high


def _exists(operand: object) -> Check | None:
    return (lambda value: (value is not None) is operand) if isinstance(operand, bool) else None


def _missing(operand: object) -> Check | None:
    return (lambda value: (value is None) is operand) if isinstance(operand, bool) else None


def _matches(operand: object) -> Check | None:
    return glob(operand) if is_text(operand) else None


def _starts_with(operand: object) -> Check | None:
    if not is_text(operand):
        return None
    start = operand.casefold()
    return lambda value: isinstance(value, str) and value.casefold().startswith(start)


def _contains(operand: object) -> Check | None:
    if not is_text(operand):
        return None
    part = operand.casefold()
    return lambda value: isinstance(value, str) and part in value.casefold()


OPERATORS: Mapping[str, Operator] = {
    "eq": Operator("one value", _equal, "="),
    "ne": Operator("one value", _other_than(_equal), "is not"),
    "in": Operator("a list of values", _one_of, "in"),
    "not_in": Operator("a list of values", _other_than(_one_of), "not in"),
    "gt": Operator("a number", _greater, ">"),
    "gte": Operator("a number", _at_least, ">="),
    "lt": Operator("a number", _less, "<"),
    "lte": Operator("a number", _at_most, "<="),
    "between": Operator("two numbers, the lower first", _between, "between"),
    "exists": Operator("true or false", _exists, "exists"),
    "missing": Operator("true or false", _missing, "is missing"),
    "matches": Operator("text, `*` standing for anything", _matches, "matches"),
    "starts_with": Operator("text", _starts_with, "starts with"),
    "contains": Operator("text", _contains, "contains"),
}
