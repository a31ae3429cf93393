"""Examples: tests inside the contract. Data here; `agreement check` runs them against the real engine.

- lead: {company_size: 500}
  activities: [{demo_requested: now}, {page_viewed: {ago: P3D, times: 4, properties: {path: /pricing}}}]
  expect: {mql: true, bucket: hot}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator, Field

from shared.agreement.durations import ExactDuration
from shared.agreement.flaws import Fault, Step, refuse, shown
from shared.agreement.parts import Name, Pairs, Part


def _activity(raw: object) -> object:
    """`{kind: now}`, `{kind: P3D}` (so long ago) or `{kind: {ago, times, properties}}` as one flat mapping."""
    if not isinstance(raw, Mapping) or len(raw) != 1:
        refuse([Fault((), f"{shown(raw)}: expected one kind and its time, such as {{demo_requested: now}}")])
    ((kind, when),) = raw.items()
    if isinstance(when, Mapping):
        return {"kind": kind, **{key: value for key, value in when.items() if (key, value) != ("ago", "now")}}
    return {"kind": kind} if when == "now" else {"kind": kind, "ago": when}


class ExampleActivity(Part):
    """An activity of an example, `times` of them; `ago` None: now."""

    kind: Name
    ago: ExactDuration | None = None
    times: int = Field(default=1, ge=1, le=1000)
    properties: Pairs = ()


class Expectation(Part):
    """What the engine must say; what is left out is not asked."""

    mql: bool | None = None
    bucket: str | None = None
    score: float | None = None

    def __str__(self) -> str:
        mql = None if self.mql is None else str(self.mql).lower()
        score = None if self.score is None else f"{self.score:.10g}"
        said = (("mql", mql), ("bucket", self.bucket), ("score", score))
        return ", ".join(f"{name} {value}" for name, value in said if value is not None) or "nothing"


class Example(Part):
    lead: Pairs = ()
    activities: tuple[Annotated[ExampleActivity, BeforeValidator(_activity)], ...] = ()
    expect: Expectation


class Tried(NamedTuple):
    """What an engine made of an example, in words that stand beside what was expected. `steps`: its place."""

    steps: tuple[Step, ...]
    expected: str
    came_out: str
    holds: bool
