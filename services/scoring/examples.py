"""The examples of an agreement, lived by the real engine: what came out, beside what both teams expect. Pure.

An example is the life of a lead that nobody knew before. Its facts are learnt first, then each activity is received
when it happens. `mql`: whether it qualified on the way; `bucket` and `score`: as they stand at `NOW`.

Found by the entry point group `baton.examples`: `baton agreement check` runs them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from services.scoring.lead import Crossing, Lead, apply, fold_anew
from services.scoring.score import Reading, read
from services.scoring.scorecard import Card, cards_of
from shared.agreement import Agreement
from shared.agreement.examples import Example, ExampleActivity, Expectation, Tried
from shared.events import ActivityRecorded, Scalar

# A Wednesday noon in the middle of a month, of the agreement's zone: no window of a limit begins or ends nearby, and
# what a signed example says does not depend on the day it is run.
NOW = datetime(2025, 1, 15, 12, tzinfo=UTC)
LEAD_ID = "lead_example"
FACTS = "attributes_changed"


def run_examples(agreement: Agreement) -> list[Tried]:
    """Every example of every scorecard, in the order of the text."""
    return [
        _tried(card, example, ("scorecards", place, "examples", number))
        for place, (scorecard, card) in enumerate(zip(agreement.scorecards, cards_of(agreement), strict=True))
        for number, example in enumerate(scorecard.examples)
    ]


def _tried(card: Card, example: Example, steps: tuple[str | int, ...]) -> Tried:
    now = NOW.replace(tzinfo=card.zone).astimezone(UTC)
    lead, crossings = _lived(card, example, now)
    reading = read(card, lead.standings[0].tally, lead.facts, now)
    expect = example.expect
    came_out = Expectation(mql=bool(crossings), bucket=reading.bucket, score=reading.score / 100)
    return Tried(steps, str(expect), _told(came_out, crossings), _holds(expect, bool(crossings), reading))


def _lived(card: Card, example: Example, now: datetime) -> tuple[Lead, list[Crossing]]:
    """The lead at the end of its activities, and where it qualified."""
    lead = Lead(LEAD_ID, 1, None, {}, history=[])
    fold_anew(lead, [card], 1)
    return lead, [crossing for activity in _activities(example, now) for crossing in apply(lead, activity)]


def _activities(example: Example, now: datetime) -> Iterator[ActivityRecorded]:
    """What happens to the lead, as it is received: its facts, then the oldest first."""
    happened = sorted(example.activities, key=lambda activity: _at(activity, now))
    first = _at(happened[0], now) if happened else now
    yield _recorded("facts", FACTS, first, attributes=dict(example.lead))
    for place, activity in enumerate(happened):
        for time in range(activity.times):
            at, properties = _at(activity, now), dict(activity.properties)
            yield _recorded(f"{place}-{time}", activity.kind, at, properties=properties)


def _at(activity: ExampleActivity, now: datetime) -> datetime:
    return now - (activity.ago.timedelta if activity.ago else timedelta())


def _recorded(
    activity_id: str,
    kind: str,
    at: datetime,
    *,
    properties: dict[str, Scalar] | None = None,
    attributes: dict[str, Scalar] | None = None,
) -> ActivityRecorded:
    return ActivityRecorded(
        lead_id=LEAD_ID,
        activity_id=activity_id,
        kind=kind,
        source="example",
        source_id=activity_id,
        occurred_at=at,
        received_at=at,
        agreement_version=1,
        properties=properties or {},
        attributes=attributes or {},
    )


def _holds(expect: Expectation, is_mql: bool, reading: Reading) -> bool:
    return (
        expect.mql in (None, is_mql)
        and expect.bucket in (None, reading.bucket)
        and (expect.score is None or round(expect.score * 100) == reading.score)
    )


def _told(came_out: Expectation, crossings: list[Crossing]) -> str:
    clauses = ", ".join(crossing.qualification.clause for crossing in crossings)
    return f"{came_out} (by {clauses})" if clauses else str(came_out)
