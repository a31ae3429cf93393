"""What the rest of Baton is told of an arrival. Pure.

Ids are made from (source, source id), so that a repetition has the same ones. Contact details are not in here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from services.scoring.arrivals import Activity, Arrival, Entry, Opportunity, Touch
from services.scoring.resolve import Merge
from shared.events import ActivityRecorded, Event, IdentityMerged, OpportunityChanged, TouchRecorded

LEAD_TOOK_PART = frozenset(  # touches in which the lead did something too: they also count as the lead's activity
    {
        "call_answered",
        "call_connected",
        "demo_held",
        "email_replied",
        "meeting_booked",
        "meeting_held",
        "message_replied",
        "reply_received",
    }
)


@dataclass(frozen=True, slots=True)
class Moment:
    """What all records of a group share."""

    received_at: datetime
    agreement_version: int | None


def record_id(prefix: str, entry: Entry) -> str:
    """The id of what an entry became."""
    return id_of(prefix, *entry.key)


def id_of(prefix: str, source: str, source_id: str) -> str:
    """The id of what the item that the inbox knows by this key became."""
    digits = hashlib.sha256(f"{source}\n{source_id}".encode("utf-8", "replace")).hexdigest()[:32]
    return f"{prefix}_{digits}"


def events(entry: Entry, lead_id: str, moment: Moment) -> Iterator[tuple[str, Event]]:
    """The events of an entry with their ids: what happened, and, where the lead took part in a touch, that it did."""
    assert isinstance(entry.item, Arrival)
    match entry.item.what:
        case Activity() as activity:
            yield record_id("act", entry), _activity(entry, lead_id, activity, moment)
        case Touch() as touch:
            yield record_id("touch", entry), _touch(entry, lead_id, touch, moment)
            if touch.kind in LEAD_TOOK_PART:
                yield record_id("act", entry), _activity(entry, lead_id, Activity(touch.kind), moment)
        case Opportunity() as opportunity:
            yield record_id("opp", entry), _opportunity(entry, lead_id, opportunity, moment)
        case never:
            assert_never(never)


def merged(entry: Entry, merge: Merge, moment: Moment) -> Event:
    """The evidence an entry holds that two leads are one."""
    return IdentityMerged(
        absorbed_id=merge.absorbed,
        survivor_id=merge.survivor,
        evidence=merge.evidence,
        cause=record_id("act", entry),
        received_at=moment.received_at,
    )


def _activity(entry: Entry, lead_id: str, activity: Activity, moment: Moment) -> Event:
    assert isinstance(entry.item, Arrival)
    occurred_at, is_replaced = entry.item.when.occurred(moment.received_at)
    return ActivityRecorded(
        lead_id=lead_id,
        activity_id=record_id("act", entry),
        kind=activity.kind,
        source=entry.source,
        source_id=entry.item.source_id,
        occurred_at=occurred_at,
        received_at=moment.received_at,
        agreement_version=moment.agreement_version,
        properties=dict(activity.properties),
        attributes=dict(activity.attributes),
        occurred_at_replaced=is_replaced,
    )


def _touch(entry: Entry, lead_id: str, touch: Touch, moment: Moment) -> Event:
    assert isinstance(entry.item, Arrival)
    return TouchRecorded(
        lead_id=lead_id,
        touch_id=record_id("touch", entry),
        kind=touch.kind,
        by=touch.by,
        outcome=touch.outcome,
        source=entry.source,
        source_id=entry.item.source_id,
        occurred_at=entry.item.when.occurred(moment.received_at)[0],
        received_at=moment.received_at,
        crm=touch.crm,
    )


def _opportunity(entry: Entry, lead_id: str, deal: Opportunity, moment: Moment) -> Event:
    assert isinstance(entry.item, Arrival)
    return OpportunityChanged(
        lead_id=lead_id,
        opportunity_id=deal.opportunity_id,
        stage=deal.stage,
        name=deal.name,
        amount=deal.amount,
        currency=deal.currency,
        owner=deal.owner,
        product=deal.product,
        motion=deal.motion,
        reason=deal.reason,
        source=entry.source,
        source_id=entry.item.source_id,
        occurred_at=entry.item.when.occurred(moment.received_at)[0],
        received_at=moment.received_at,
        crm=deal.crm,
    )
