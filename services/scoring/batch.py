"""What a batch does to the leads it holds, record by record, in lane order; nothing is read or written here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from services.scoring.identity import is_provisional, survivor_first
from services.scoring.lead import Crossing, Lead, absorb, apply, fold_anew, judge_once
from services.scoring.scorecard import Card
from shared.envelope import Received
from shared.events import ActivityRecorded, IdentityMerged

Cards = Mapping[int, Sequence[Card]]  # by version of the agreement


@dataclass(frozen=True, slots=True)
class Crossed:
    """A lead qualified: by which activity or event, and when the lead's clock started."""

    crossing: Crossing
    crossed_by: str
    qualified_at: datetime
    cause: Received[Any] | None


@dataclass(frozen=True, slots=True)
class Merged:
    """A root became part of another one."""

    absorbed: str
    survivor: str
    cause: Received[IdentityMerged]


@dataclass(slots=True)
class Batch:
    """The leads under lock, by root. `touched`: to be written; `happened`: to be told, in this order."""

    leads: dict[str, Lead]
    roots: Mapping[str, str]
    cards: Cards
    survivors: dict[str, str] = field(default_factory=dict)
    touched: dict[str, Received[Any] | None] = field(default_factory=dict)
    happened: list[Crossed | Merged] = field(default_factory=list)

    def root(self, lead_id: str) -> str:
        """The root a lead id stands for at this point of the batch."""
        found = self.roots.get(lead_id, lead_id)
        while found in self.survivors:
            found = self.survivors[found]
        return found

    def final_survivors(self) -> dict[str, str]:
        """Each root absorbed in this batch, and the root it is part of at the end."""
        return {absorbed: self.root(absorbed) for absorbed in self.survivors}


def take_activity(batch: Batch, received: Received[ActivityRecorded]) -> None:
    """An activity that was not stored before: count it under the later of its version and the lead's, and judge."""
    activity = received.event
    lead = batch.leads[batch.root(activity.lead_id)]
    if (activity.agreement_version or 0) > lead.version:
        _switch(batch, lead, activity.agreement_version or 0)
    batch.touched[lead.lead_id] = received
    for crossing in apply(lead, activity):
        batch.happened.append(Crossed(crossing, activity.activity_id, activity.received_at, received))


def take_merge(batch: Batch, received: Received[IdentityMerged]) -> None:
    """Two lead ids are one person: join their roots, unless they are joined or the evidence is too weak for it."""
    event = received.event
    if not _joins(batch, event):
        return
    survivor, absorbed = survivor_first(batch.root(event.absorbed_id), batch.root(event.survivor_id))
    lead, other = batch.leads[survivor], batch.leads.pop(absorbed)
    absorb(lead, other, event.received_at)
    batch.survivors[absorbed] = survivor
    batch.touched.pop(absorbed, None)
    batch.touched[survivor] = received
    batch.happened.append(Merged(absorbed, survivor, received))
    _switch(batch, lead, max(lead.version, other.version))
    for crossing, _ in judge_once(lead):
        batch.happened.append(Crossed(crossing, received.id, event.received_at, received))


def take_end_of_cycle(batch: Batch, lead_id: str, cause: Received[Any]) -> None:
    """An MQL of the lead is done with: fold what the next cycle sees, and judge it once."""
    lead = batch.leads[lead_id]
    batch.touched[lead_id] = cause
    _switch(batch, lead, lead.version)
    for crossing, activity in judge_once(lead):
        batch.happened.append(Crossed(crossing, cause.id, activity.received_at, cause))


def take_version(batch: Batch, lead_id: str, version: int, now: datetime) -> None:
    """Score a lead under a newer version. It makes no MQL, but of a lead that no version had scored yet.

    That one is judged as its activities would have been when they came, unless they are too old for that by now.
    """
    lead = batch.leads[lead_id]
    is_first = lead.version == 0
    batch.touched[lead_id] = None
    _switch(batch, lead, version)
    for crossing, activity in judge_once(lead, now=now) if is_first else ():
        batch.happened.append(Crossed(crossing, activity.activity_id, activity.received_at, None))


def _joins(batch: Batch, event: IdentityMerged) -> bool:
    one, other = batch.root(event.absorbed_id), batch.root(event.survivor_id)
    if one == other:
        return False
    if event.evidence == "strong":
        return True
    return one == event.absorbed_id and is_provisional(one) and not is_provisional(other)


def _switch(batch: Batch, lead: Lead, version: int) -> None:
    fold_anew(lead, batch.cards.get(version, ()), version)
