"""How much of a lead an MQL carries: bounded by the agreement, whatever its senders told. Pure.

An event has at most 256 KiB. Of the attributes only those travel that the agreement asks about (at most 100 names of
100 characters, which `check` holds), texts cut to 200 characters; contact details likewise; of the explanation the 200
lines that weigh most, the others summed up for each dimension (at most 20), so that the lines still sum to the score.
A character takes up to six bytes: 200 KiB at the very most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import TypeVar

from shared.events import ExplanationLine, Scalar

MAX_TEXT = 200
MAX_LINES = 200
MAX_CLAUSE = 1000

S = TypeVar("S", str, Scalar)


def asked_for(attributes: Mapping[str, Scalar], fields: Set[str]) -> dict[str, Scalar]:
    """Those attributes that the agreement names."""
    return cut({name: value for name, value in attributes.items() if name in fields})


def cut(told: Mapping[str, S]) -> dict[str, S]:
    """The same, with long texts cut."""
    return {name: value[:MAX_TEXT] if isinstance(value, str) else value for name, value in told.items()}


def summed_up(lines: Sequence[ExplanationLine]) -> list[ExplanationLine]:
    """The lines that weigh most, in their order, then one for the rest of each dimension."""
    if len(lines) <= MAX_LINES:
        return list(lines)
    by_weight = sorted(range(len(lines)), key=lambda place: -abs(lines[place].points))
    kept = set(by_weight[:MAX_LINES])
    rest: dict[str, list[ExplanationLine]] = {}
    for place, line in enumerate(lines):
        if place not in kept:
            rest.setdefault(line.dimension, []).append(line)
    return [line for place, line in enumerate(lines) if place in kept] + [
        ExplanationLine(
            kind="rule",
            dimension=dimension,
            count=sum(line.count for line in others),
            points=sum(round(line.points * 100) for line in others) / 100,
        )
        for dimension, others in rest.items()
    ]
