"""When the milestones of an assignment are due, on the wall clock of the team that has to keep them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, tzinfo

from shared.agreement import Agreement, Policy, handoff_facts
from shared.events import MqlQualified
from shared.worktime import NeverOpen, deadline


def dues(agreement: Agreement, mql: MqlQualified, *, assigned_at: datetime) -> Iterator[tuple[str, str]]:
    """(milestone, local time) for each milestone whose start is known at the assignment."""
    policy = _policy_for(agreement, mql)
    calendar = agreement.calendar(policy.calendar)
    starts = {"assigned": assigned_at, "mql": mql.qualified_at}
    for milestone in policy.milestones:
        start = starts.get(milestone.since)
        if start is None:
            continue
        try:
            due = deadline(calendar, start, agreement.allowed_seconds(policy, milestone))
        except NeverOpen:
            continue
        yield milestone.id.replace("_", " "), local_time(due, calendar.zone)


def zone_of_policy(agreement: Agreement, policy_id: str) -> tzinfo:
    """The zone of the calendar that this policy's clocks run by."""
    policy = agreement.policy(policy_id)
    return agreement.calendar(policy.calendar).zone if policy else agreement.zone


def local_time(instant: datetime, zone: tzinfo) -> str:
    """`Mon 22 Nov 2027, 09:05 EST`."""
    return instant.astimezone(zone).strftime("%a %d %b %Y, %H:%M %Z")


def _policy_for(agreement: Agreement, mql: MqlQualified) -> Policy:
    facts = handoff_facts(
        product=mql.product,
        motion=mql.motion,
        bucket=mql.bucket,
        raised_hand=mql.raised_hand,
        attributes=mql.attributes,
    )
    return agreement.policy_for(facts)
