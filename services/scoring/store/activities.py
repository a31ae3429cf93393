"""The activities of leads: stored once, under the root they count for, and read back to be folded anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy.engine import Row

from services.scoring.store.locks import column
from shared.db import Session
from shared.events import ActivityRecorded, Scalar
from shared.sql import sql

INSERT_ACTIVITIES = sql(
    """
    INSERT INTO activities (activity_id, lead_id, came_in_under, kind, source, source_id, occurred_at, received_at,
        agreement_version, properties, attributes, occurred_at_replaced, qualify_any_age)
    SELECT activity_id, lead_id, came_in_under, kind, source, source_id, occurred_at, received_at,
        agreement_version, properties, attributes, occurred_at_replaced, qualify_any_age
    FROM {rows} WHERE true
    ON CONFLICT (activity_id) DO NOTHING
    RETURNING activity_id
    """,
    activity_id="text",
    lead_id="text",
    came_in_under="text",
    kind="text",
    source="text",
    source_id="text",
    occurred_at="timestamptz",
    received_at="timestamptz",
    agreement_version="bigint",
    properties="text",
    attributes="text",
    occurred_at_replaced="boolean",
    qualify_any_age="boolean",
)

HISTORIES = sql(
    """
    SELECT activity_id, lead_id, kind, source, source_id, occurred_at, received_at, agreement_version, properties,
        attributes, occurred_at_replaced, qualify_any_age
    FROM activities WHERE lead_id IN (SELECT lead_id FROM {rows}) ORDER BY received_at, activity_id
    """,
    lead_id="text",
)


async def insert_activities(
    session: Session, activities: Sequence[ActivityRecorded], roots: Mapping[str, str]
) -> set[str]:
    """Store activities under their roots; the ids of those that were new."""
    if not activities:
        return set()
    rows = [_row(activity, roots[activity.lead_id]) for activity in activities]
    return {row.activity_id for row in await session.execute(INSERT_ACTIVITIES, rows)}


async def histories(session: Session, lead_ids: Iterable[str]) -> dict[str, list[ActivityRecorded]]:
    """All activities of these roots, by root, in the order they were received."""
    found: dict[str, list[ActivityRecorded]] = {}
    for row in await session.execute(HISTORIES, column(lead_ids)):
        found.setdefault(row.lead_id, []).append(_activity(row))
    return found


_scalars = msgspec.json.Decoder(dict[str, Scalar])


def _row(activity: ActivityRecorded, root: str) -> tuple[object, ...]:
    return (
        activity.activity_id,
        root,
        activity.lead_id,
        activity.kind,
        activity.source,
        activity.source_id,
        activity.occurred_at,
        activity.received_at,
        activity.agreement_version or 0,
        msgspec.json.encode(activity.properties).decode(),
        msgspec.json.encode(activity.attributes).decode(),
        activity.occurred_at_replaced,
        activity.qualify_any_age,
    )


def _activity(row: Row[Any]) -> ActivityRecorded:
    return ActivityRecorded(
        lead_id=row.lead_id,
        activity_id=row.activity_id,
        kind=row.kind,
        source=row.source,
        source_id=row.source_id,
        occurred_at=row.occurred_at,
        received_at=row.received_at,
        agreement_version=row.agreement_version or None,
        properties=_scalars.decode(row.properties),
        attributes=_scalars.decode(row.attributes),
        occurred_at_replaced=bool(row.occurred_at_replaced),
        qualify_any_age=bool(row.qualify_any_age),
    )
