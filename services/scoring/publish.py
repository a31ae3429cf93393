"""The end of every batch of the scorer: write what became of the leads, and tell the others."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from services.scoring import store
from services.scoring.batch import Batch, Crossed, Merged
from services.scoring.brief import MAX_CLAUSE, cut
from services.scoring.lead import Displayed, Lead, Standing, display
from shared.db import Session
from shared.events import LeadMerged, LeadScored, MqlQualified
from shared.outbox import emit

Contact = Mapping[str, str]


async def publish(session: Session, batch: Batch, now: datetime) -> None:
    """Write the batch; emit its merges and MQLs in the order they happened, then the scores that changed."""
    leads = [batch.leads[lead_id] for lead_id in sorted(batch.touched)]
    survivors = batch.final_survivors()
    crossed = [one for one in batch.happened if isinstance(one, Crossed)]
    changed = [
        (lead, standing, displayed)
        for lead in leads
        if lead.last_received_at is not None
        for standing in lead.standings
        if (displayed := display(lead, standing)) is not None
    ]
    await store.put_merges(session, survivors)
    await store.put_leads(session, leads)
    await store.insert_mqls(session, crossed, survivors)
    contacts = await store.contacts(session, {batch.root(one.crossing.lead_id) for one in crossed}) if crossed else {}
    for one in batch.happened:
        if isinstance(one, Merged):
            _tell_merged(session, one, now)
        else:
            _tell_qualified(session, one, contacts.get(batch.root(one.crossing.lead_id), {}))
    for lead, standing, displayed in changed:
        event_id = f"scored_{lead.lead_id}_{standing.card.id}_{displayed.version}"
        emit(session, _scored(lead, standing, displayed), cause=batch.touched[lead.lead_id], event_id=event_id)


def _tell_merged(session: Session, merged: Merged, now: datetime) -> None:
    event = LeadMerged(absorbed_id=merged.absorbed, survivor_id=merged.survivor, merged_at=now)
    emit(session, event, cause=merged.cause, event_id=f"merged_{merged.absorbed}")


def _tell_qualified(session: Session, crossed: Crossed, contact: Contact) -> None:
    crossing = crossed.crossing
    event = MqlQualified(
        lead_id=crossing.lead_id,
        mql_id=crossing.mql.mql_id,
        product=crossing.mql.product,
        motion=crossing.mql.motion,
        cycle=crossing.mql.cycle,
        scorecard=crossing.card.id,
        score=crossing.reading.score / 100,
        dimensions=_points(crossing.reading.dimensions),
        bucket=crossing.reading.bucket,
        clause=crossing.qualification.clause[:MAX_CLAUSE],
        raised_hand=crossing.qualification.raised_hand is not None,
        agreement_version=crossing.agreement_version,
        qualified_at=crossed.qualified_at,
        explanation=list(crossing.explanation),
        contact=cut(contact),
        attributes=crossing.attributes,
    )
    emit(session, event, cause=crossed.cause, event_id=crossing.mql.mql_id)


def _scored(lead: Lead, standing: Standing, displayed: Displayed) -> LeadScored:
    if lead.last_received_at is None:
        raise ValueError(f"{lead.lead_id}: nothing was received of it yet")
    return LeadScored(
        lead_id=lead.lead_id,
        scorecard=standing.card.id,
        product=standing.card.product,
        motion=standing.card.motion,
        score=displayed.reading.score / 100,
        dimensions=_points(displayed.reading.dimensions),
        bucket=displayed.reading.bucket,
        cycle=standing.cycle.number,
        version=displayed.version,
        agreement_version=lead.version,
        as_of=lead.last_received_at,
    )


def _points(dimensions: Mapping[str, int]) -> dict[str, float]:
    return {name: value / 100 for name, value in dimensions.items()}
