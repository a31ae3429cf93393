"""A small agreement with every kind of rule, and the activities of the leads that the tests score under it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from services.scoring.scorecard import Card, cards_of
from shared.agreement import parse
from shared.events import ActivityRecorded, Scalar

NOON = datetime(2026, 3, 10, 16, 0, tzinfo=UTC)  # a Tuesday, noon in New York
ANNA = "lead_01900000-0000-7000-8000-00000000000a"
BERT = "lead_01900000-0000-7000-8000-00000000000b"
VISITOR = "anon_01900000-0000-7000-8000-000000000001"

AGREEMENT = """
agreement: acme
timezone: America/New_York
lookback: P60D
parties:
  marketing: {head: mia@acme.example, champion: leo@acme.example}
  sales: {head: sam@acme.example}
definitions:
  touch: {by: owner, kinds: [call_logged]}
reps: [{id: ana, name: Ana, email: ana@acme.example, manager: sam@acme.example}]
pools: [{id: all, members: [{rep: ana}]}]
scorecards:
  - id: robots
    product: robots
    motion: new_business
    dimensions:
      fit:
        cap: 50
        groups:
          - id: company
            cap: 40
            rules:
              - {id: size, when: {company_size: {gte: 200}}, points: 30}
              - {id: country, when: {country: [US, CA]}, points: 12.5}
      engagement:
        cap: 100
        half_life: P14D
        groups:
          - id: site
            cap: 60
            floor: -20
            rules:
              - {id: pricing, when: {activity: page_viewed, path: "/pricing*"}, points: 10, limit: {times: 3, per: day}}
              - {id: any-page, when: {activity: page_viewed}, points: 0.35, limit: {times: 2, per: hour}}
              - {id: careers, when: {activity: page_viewed, path: /careers*}, points: -15, limit: {times: 1, per: week}}
          - id: content
            cap: 50
            rules:
              - id: webinar
                when: {activity: [webinar_attended, webinar_watched]}
                points: 24.99
                limit: {times: 2, per: month}
              - {id: click, when: {activity: email_clicked}, points: 3.33}
    buckets:
      hot: {when: {engagement: {gte: 50}, fit: {gte: 30}}, owner: sales, next_step: call}
      cold: {otherwise: true, owner: marketing, next_step: nurture}
    mql:
      any:
        - {fit: {gte: 30}, engagement: {gte: 50}}
        - {activity: demo_requested}
      qualify_max_age: P2D
    requalify: {after: P30D, or_points: 20}
routing:
  - {otherwise: true, pool: all, last_resort: sam@acme.example}
sla:
  calendars: [{id: na, timezone: America/New_York, hours: {mon-fri: ["09:00-17:00"]}}]
  policies:
    - {otherwise: true, calendar: na, milestones: {accept: {within: PT4H, from: assigned}}}
reasons:
  reject: [{id: not_a_fit, class: fit, then: {nurture: default}}]
  recycle: [{id: no_budget, class: timing, then: {nurture: default}}]
  lost: [{id: competitor, class: fit, then: {nurture: default}}]
"""


def card() -> Card:
    (only,) = cards_of(parse(AGREEMENT))
    return only


def activity(
    kind: str = "page_viewed",
    at: datetime = NOON,
    *,
    id: str = "",
    lead_id: str = ANNA,
    properties: Mapping[str, Scalar] | None = None,
    **facts: object,
) -> ActivityRecorded:
    """An activity; `facts` are fields of the event, e.g. `attributes`, `received_at` (else `at`)."""
    fields: dict[str, object] = {
        "activity_id": id or f"act_{kind}_{at.isoformat()}",
        "received_at": at,
        "source": "test",
        "source_id": id or f"{kind}_{at.isoformat()}",
        "agreement_version": 1,
        **facts,
    }
    return ActivityRecorded(lead_id=lead_id, kind=kind, occurred_at=at, properties=dict(properties or {}), **fields)  # type: ignore[arg-type]


def pricing(minutes: int = 0, **fields: object) -> ActivityRecorded:
    return activity(at=NOON + timedelta(minutes=minutes), properties={"path": "/pricing"}, **fields)  # type: ignore[arg-type]


def a_good_company(**fields: object) -> ActivityRecorded:
    """30 points of fit."""
    return activity("profile_updated", attributes={"company_size": 500}, **fields)  # type: ignore[arg-type]


@st.composite
def lives(
    draw: st.DrawFn, *, lead_id: str = ANNA, prefix: str = "a", version: int | None = 1
) -> list[ActivityRecorded]:
    """Distinct activities of one lead, received in the order of the list, some of them late."""
    drawn = draw(st.lists(st.tuples(_kinds, _hours, _delays, _attributes), max_size=25))
    received = sorted(hours for _, hours, _, _ in drawn)
    return [
        activity(
            kind,
            NOON + timedelta(hours=hours) - timedelta(hours=delay),
            id=f"{prefix}{place}",
            lead_id=lead_id,
            properties={"path": path},
            attributes=attributes,
            received_at=NOON + timedelta(hours=hours),
            agreement_version=version,
        )
        for place, (((kind, path), _, delay, attributes), hours) in enumerate(zip(drawn, received, strict=True))
    ]


_kinds = st.sampled_from(
    [
        ("page_viewed", "/pricing"),
        ("page_viewed", "/careers/x"),
        ("page_viewed", "/"),
        ("webinar_attended", ""),
        ("webinar_watched", ""),
        ("email_clicked", ""),
        ("demo_requested", ""),
        ("unknown", ""),
    ]
)
_hours = st.integers(0, 24 * 90)
_delays = st.sampled_from([0, 0, 0, 1, 47, 49, 24 * 20])
_attributes = st.sampled_from([{}, {}, {"company_size": 500}, {"company_size": 5, "country": "US"}, {"country": None}])
