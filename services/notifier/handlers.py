"""What the notifier does with each event it reads: keep what messages need, and write the deliveries that follow.

A handoff's event may come before its MQL or its agreement, which travel on other topics: it waits a little, then it is
told with what is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog

from services.notifier.compose import Desk, Known, compose, is_told
from services.notifier.store import deliveries, leads
from services.notifier.store.deliveries import Added, Cause
from shared.agreement_copies import keep_agreements, versions
from shared.db import Session
from shared.envelope import Received
from shared.events import HandoffEvent, LeadErased, LeadMerged, MqlQualified, NurtureEvent, SlaEvent
from shared.outcomes import RetryLater
from shared.settle import Handler
from shared.telemetry import metrics

PATIENCE = timedelta(seconds=30)  # for another topic; well below the 15 minutes after which a record is dead
REMEMBERED = timedelta(hours=1)  # that a wait was in vain
DELIVERIES = "deliveries"

Told = HandoffEvent | SlaEvent | NurtureEvent

log = structlog.get_logger()


@dataclass
class Patience:
    """Since when this process waits for each MQL and agreement that events name. A restart only waits again."""

    limit: timedelta = PATIENCE
    waiting: dict[str, datetime] = field(default_factory=dict)

    def has_run_out(self, lacking: str, now: datetime) -> bool:
        return now - self.waiting.setdefault(lacking, now) >= self.limit

    def forget_before(self, oldest: datetime) -> None:
        self.waiting = {lacking: since for lacking, since in self.waiting.items() if since >= oldest}


async def keep_leads(records: Sequence[Received[Any]], *, session: Session, now: datetime) -> None:
    """Keep what messages need of an MQL; forget what is erased. An MQL read again after its erasure stays forgotten."""
    events = [received.event for received in records]
    merges = [event for event in events if isinstance(event, LeadMerged)]
    gone = [event.lead_id for event in events if isinstance(event, LeadErased)]
    mqls = [event for event in events if isinstance(event, MqlQualified)]
    touched = [lead_id for merged in merges for lead_id in (merged.absorbed_id, merged.survivor_id)]
    touched += gone + [mql.lead_id for mql in mqls]
    if not touched:
        return
    await leads.lock(session, touched)
    forgotten = await leads.erased(session, touched)
    await leads.keep_mqls(session, (mql for mql in mqls if mql.lead_id not in forgotten))
    await leads.merge(session, merges, now=now)
    await leads.erase(session, gone, now=now)


async def tell(
    records: Sequence[Received[Any]], *, session: Session, now: datetime, desk: Desk, patience: Patience
) -> None:
    """Write a delivery for each receiver and channel that these events are told to."""
    told = [received for received in records if is_told(received.event)]
    if not told:
        return
    await leads.lock(session, (received.event.lead_id for received in told))
    told = await _still_told(session, told)
    known = await _known(session, told)
    _require(told, known, patience, now)
    made = [
        (_cause(received), message)
        for received in told
        for message in compose(received.event, known[received.id], desk)
    ]
    added = await deliveries.add(session, made, now=now)
    _announce(session, added)


async def _still_told(session: Session, told: Sequence[Received[Told]]) -> list[Received[Told]]:
    """Without forgotten leads, and without what a newer word to marketing's automation has overtaken."""
    forgotten = await leads.erased(session, (received.event.lead_id for received in told))
    newest = await deliveries.newest_nurture(
        session, (each.event for each in told if isinstance(each.event, NurtureEvent))
    )
    kept: list[Received[Told]] = []
    for received in told:
        event = received.event
        if event.lead_id in forgotten:
            continue
        if isinstance(event, NurtureEvent):
            if event.version < newest.get(event.handoff_id, event.version):
                continue
            newest[event.handoff_id] = event.version
        kept.append(received)
    return kept


async def _known(session: Session, told: Sequence[Received[Told]]) -> Mapping[str, Known]:
    """What is known about each event, by its id."""
    mqls = await leads.mqls(session, (received.event.mql_id for received in told))
    agreements = await versions(session, {_agreement_version(received.event) or 0 for received in told})
    return {
        received.id: Known(
            mql=mqls.get(received.event.mql_id), agreement=agreements.get(_agreement_version(received.event) or 0)
        )
        for received in told
    }


def _agreement_version(event: Told) -> int | None:
    return None if isinstance(event, NurtureEvent) else event.agreement_version


def _require(told: Sequence[Received[Told]], known: Mapping[str, Known], patience: Patience, now: datetime) -> None:
    """Raise `RetryLater` for the first event that may still wait for what it needs; all start to wait at once."""
    patience.forget_before(now - REMEMBERED)
    lacks = [(received, lacking) for received in told if (lacking := _lacking(received.event, known[received.id]))]
    waiting = [(received, lacking) for received, lacking in lacks if not patience.has_run_out(lacking, now)]
    if waiting:
        received, lacking = waiting[0]
        raise RetryLater(received, f"{lacking} is not read yet")
    for received, lacking in lacks:
        log.warning("notifier.told_without", event_id=received.id, lacking=lacking)


def _lacking(event: Told, known: Known) -> str | None:
    if known.mql is None:
        return event.mql_id
    if known.agreement is None and not isinstance(event, NurtureEvent):
        return f"agreement {event.agreement_version}"
    return None


def _cause(received: Received[Told]) -> Cause:
    event = received.event
    return Cause(
        event_id=received.id,
        event_type=event.type,
        lead_id=event.lead_id,
        handoff_id=event.handoff_id,
        version=event.version,
        traceparent=received.traceparent,
        time=event.at,
    )


def _announce(session: Session, added: Iterable[Added]) -> None:
    """Wake those who deliver; say aloud what nobody can be told."""
    for delivery in added:
        if delivery.is_dead:
            metrics.deliveries_ended.labels(session.service, delivery.channel, "dead").inc()
            log.error("delivery.dead", delivery_id=delivery.delivery_id, cause="no way to the receiver")
        else:
            session.wake(f"{DELIVERIES}.{delivery.channel}")


def handlers(desk: Desk, patience: Patience | None = None) -> dict[str, Handler]:
    """The topics that the notifier reads, in the order in which a transaction applies them."""
    tell_them = partial(tell, desk=desk, patience=patience or Patience())
    return {
        "baton.agreements.v1": keep_agreements,
        "baton.leads.v1": keep_leads,
        "baton.handoffs.v1": tell_them,
        "baton.nurture.v1": tell_them,
    }
