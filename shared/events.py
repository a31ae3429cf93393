"""Everything the services say to each other: typed, immutable, past tense. How it travels: envelope.py.

Instants are aware and UTC. Scores and points are exact to 0.01. Unknown fields are ignored, so that a version can grow.
Every event type has a golden example in `tests/contracts/golden`, and a test refuses a change that is not additive.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, ClassVar, Literal

import msgspec

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
Scalar = str | int | float | bool | None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What happened. `type`, `topic` and the record's key say where it travels; the closed set is `EVENTS`."""

    type: ClassVar[str]
    topic: ClassVar[str]

    @property
    def key(self) -> str:
        raise TypeError(f"{type(self).__name__} has no key")


class LeadEvent(Event, frozen=True, kw_only=True):
    """An event in the lane of one lead."""

    lead_id: str

    @property
    def key(self) -> str:
        return self.lead_id


# baton.activities.v1


class ActivityRecorded(LeadEvent, frozen=True, kw_only=True):
    """One thing a lead did, or one fact learnt about it. `attributes` are facts without contact details.

    `agreement_version` is the one in force when it was received, None without one. `occurred_at` is never later than
    `received_at`; `occurred_at_replaced` says that the sender's clock ran ahead. `qualify_any_age`: may make an MQL
    although older than the agreement's `qualify_max_age`.
    """

    type = "activity.recorded"
    topic = "baton.activities.v1"
    activity_id: str
    kind: str
    source: str
    source_id: str
    occurred_at: Instant
    received_at: Instant
    agreement_version: int | None = None
    properties: dict[str, Scalar] = {}
    attributes: dict[str, Scalar] = {}
    occurred_at_replaced: bool = False
    qualify_any_age: bool = False


class IdentityMerged(Event, frozen=True, kw_only=True):
    """Evidence that two lead ids are one person; `weak` (an anonymous id) joins a provisional lead to a known one."""

    type = "identity.merged"
    topic = "baton.activities.v1"
    absorbed_id: str
    survivor_id: str
    evidence: Literal["weak", "strong"]
    cause: str
    received_at: Instant

    @property
    def key(self) -> str:
        return self.absorbed_id


# baton.crm.v1


class TouchRecorded(LeadEvent, frozen=True, kw_only=True):
    """What a person of sales did for the lead. `by` is the performer as the sender names him: e-mail, rep or CRM id.

    `crm`: the CRM it was done in, where `source` (the door it came through) does not say it.
    """

    type = "touch.recorded"
    topic = "baton.crm.v1"
    touch_id: str
    kind: str
    by: str
    source: str
    source_id: str
    occurred_at: Instant
    received_at: Instant
    outcome: str | None = None
    crm: str | None = None


class OpportunityChanged(LeadEvent, frozen=True, kw_only=True):
    """A deal as the CRM tells it at `occurred_at`; `stage` is the CRM's own word, which the agreement maps.

    `crm`: that CRM, where `source` (the door it came through) does not say it. A deal is one by (`system`,
    `opportunity_id`).
    """

    type = "opportunity.changed"
    topic = "baton.crm.v1"
    opportunity_id: str
    stage: str
    source: str
    source_id: str
    occurred_at: Instant
    received_at: Instant
    name: str | None = None
    amount: Decimal | None = None
    currency: str | None = None
    owner: str | None = None
    product: str | None = None
    motion: str | None = None
    reason: str | None = None
    crm: str | None = None

    @property
    def system(self) -> str:
        """Whose words `stage` and `opportunity_id` are."""
        return self.crm or self.source


# baton.scores.v1, baton.leads.v1


class ExplanationLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a score; the points of all lines of a dimension sum to it exactly (0.01).

    `kind` rule: `count` activities (or the attribute) earned `points` after limits and decay; group_cap, group_floor,
    dimension_cap, dimension_floor: what a bound took away or added.
    """

    kind: Literal["rule", "group_cap", "group_floor", "dimension_cap", "dimension_floor"]
    dimension: str
    group: str | None = None
    rule: str | None = None
    count: int = 0
    points: float = 0.0


class LeadScored(LeadEvent, frozen=True, kw_only=True):
    """A displayed score or bucket changed. `version` counts up per (lead, scorecard): a reader ignores an older one.

    After `lead.merged` the absorbed lead's last score stands for nobody, in the compacted topic too: a reader drops it
    when it follows the merge. The survivor's is told under its own versions.
    """

    type = "lead.scored"
    topic = "baton.scores.v1"
    scorecard: str
    product: str
    motion: str
    score: float
    dimensions: dict[str, float]
    bucket: str
    cycle: int
    version: int
    agreement_version: int
    as_of: Instant


class MqlQualified(LeadEvent, frozen=True, kw_only=True):
    """A lead met the agreement's qualification, once per (lead, product, motion, cycle).

    The lead's clock starts at `qualified_at`.

    The only event with contact details (`contact`: email, name, company, phone ... as known).
    """

    type = "mql.qualified"
    topic = "baton.leads.v1"
    mql_id: str
    product: str
    motion: str
    cycle: int
    scorecard: str
    score: float
    dimensions: dict[str, float]
    bucket: str
    clause: str
    raised_hand: bool
    agreement_version: int
    qualified_at: Instant
    explanation: list[ExplanationLine]
    contact: dict[str, str] = {}
    attributes: dict[str, Scalar] = {}


class MqlRetractionRequested(LeadEvent, frozen=True, kw_only=True):
    """Scoring asks to take an MQL back; handoff decides and answers."""

    type = "mql.retraction_requested"
    topic = "baton.leads.v1"
    mql_id: str
    reason: str
    requested_at: Instant


class LeadMerged(Event, frozen=True, kw_only=True):
    """`absorbed_id` is from now on `survivor_id` (a root); applied once, by the scorer."""

    type = "lead.merged"
    topic = "baton.leads.v1"
    absorbed_id: str
    survivor_id: str
    merged_at: Instant

    @property
    def key(self) -> str:
        return self.absorbed_id


class LeadErased(LeadEvent, frozen=True, kw_only=True):
    """Everything personal about the lead is to be forgotten."""

    type = "lead.erased"
    topic = "baton.leads.v1"
    erased_at: Instant


# baton.handoffs.v1


class HandoffEvent(Event, frozen=True, kw_only=True):
    """One transition of a handoff. The record's key stays `opened_for`, the lead it was opened under.

    `lead_id` is the current lead (after merges); `version` the handoff row's, counting up; `actor` a rep's id, a head's
    e-mail, `baton` or a source. `ends_cycle` with `ended_at`: the lead may qualify again from then on.
    """

    topic = "baton.handoffs.v1"
    handoff_id: str
    mql_id: str
    opened_for: str
    lead_id: str
    product: str
    motion: str
    cycle: int
    agreement_version: int
    version: int
    state: str
    at: Instant
    actor: str
    cause: str
    from_state: str | None = None
    owner: str | None = None
    previous_owner: str | None = None
    pool: str | None = None
    reason: str | None = None
    reason_class: str | None = None
    touch_id: str | None = None
    ends_cycle: bool = False
    ended_at: Instant | None = None

    @property
    def key(self) -> str:
        return self.opened_for


class HandoffAssigned(HandoffEvent, frozen=True, kw_only=True):
    type = "handoff.assigned"


class HandoffUnrouted(HandoffEvent, frozen=True, kw_only=True):
    """`candidates`: why each rep of the pool cannot have it, by rep: `is not active`, `rejected it` ..."""

    type = "handoff.unrouted"
    candidates: dict[str, str] = {}


class HandoffAccepted(HandoffEvent, frozen=True, kw_only=True):
    type = "handoff.accepted"


class HandoffTouched(HandoffEvent, frozen=True, kw_only=True):
    type = "handoff.touched"


class HandoffRejected(HandoffEvent, frozen=True, kw_only=True):
    type = "handoff.rejected"


class HandoffRecycled(HandoffEvent, frozen=True, kw_only=True):
    type = "handoff.recycled"


class HandoffReassigned(HandoffEvent, frozen=True, kw_only=True):
    type = "handoff.reassigned"


class HandoffExpired(HandoffEvent, frozen=True, kw_only=True):
    type = "handoff.expired"


class HandoffQualified(HandoffEvent, frozen=True, kw_only=True):
    type = "handoff.qualified"


class HandoffOpportunity(HandoffEvent, frozen=True, kw_only=True):
    type = "handoff.opportunity"


class HandoffWon(HandoffEvent, frozen=True, kw_only=True):
    type = "handoff.won"


class HandoffLost(HandoffEvent, frozen=True, kw_only=True):
    type = "handoff.lost"


class HandoffRetracted(HandoffEvent, frozen=True, kw_only=True):
    type = "handoff.retracted"


class HandoffRetractionRefused(HandoffEvent, frozen=True, kw_only=True):
    type = "handoff.retraction_refused"


class HandoffMerged(HandoffEvent, frozen=True, kw_only=True):
    type = "handoff.merged"


class SlaEvent(Event, frozen=True, kw_only=True):
    """One clock of a handoff. `subject` is whose clock it is: `lead`, or the rep's id.

    `elapsed_seconds` is working time from `started_at` to `at`, `wall_seconds` beside it; `late_report`: met by a touch
    that was reported after the breach.
    """

    topic = "baton.handoffs.v1"
    clock_id: str
    handoff_id: str
    mql_id: str
    opened_for: str
    lead_id: str
    milestone: str
    subject: str
    policy: str
    agreement_version: int
    version: int
    started_at: Instant
    due_at: Instant
    at: Instant
    elapsed_seconds: float
    wall_seconds: float
    owner: str | None = None
    manager: str | None = None
    warn_at_percent: int | None = None
    late_report: bool = False

    @property
    def key(self) -> str:
        return self.opened_for


class SlaWarned(SlaEvent, frozen=True, kw_only=True):
    type = "sla.warned"


class SlaBreached(SlaEvent, frozen=True, kw_only=True):
    type = "sla.breached"


class SlaMet(SlaEvent, frozen=True, kw_only=True):
    type = "sla.met"


# baton.nurture.v1


class NurtureEvent(Event, frozen=True, kw_only=True):
    """What marketing's automation is told. `version` is the handoff row's: one older than the last seen is ignored."""

    topic = "baton.nurture.v1"
    handoff_id: str
    mql_id: str
    opened_for: str
    lead_id: str
    version: int
    at: Instant

    @property
    def key(self) -> str:
        return self.opened_for


class NurtureSuspended(NurtureEvent, frozen=True, kw_only=True):
    """The nurture lock: marketing's automation leaves the lead alone until further word."""

    type = "nurture.suspended"


class NurtureRequested(NurtureEvent, frozen=True, kw_only=True):
    """Back to nurture, on this track, for this reason; not before `wake_at`, where there is one.

    `is_locked`: another handoff of the lead is open, so marketing's automation leaves it alone until that ends.
    """

    type = "nurture.requested"
    track: str
    reason: str
    reason_class: str
    wake_at: Instant | None = None
    is_locked: bool = False


class NurtureResumed(NurtureEvent, frozen=True, kw_only=True):
    """This handoff asks for no track; the lock is lifted unless `is_locked` (see `NurtureRequested`)."""

    type = "nurture.resumed"
    is_locked: bool = False


# baton.agreements.v1


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """Who signed which exact content (hex SHA-256 of its UTF-8 bytes), and when."""

    party: Literal["marketing", "sales"]
    signed_by: str
    sha256: str
    signed_at: Instant


class AgreementPublished(Event, frozen=True, kw_only=True):
    """A version of the agreement, in force from `effective_from`. `content`: the signed YAML, byte for byte."""

    type = "agreement.published"
    topic = "baton.agreements.v1"
    agreement: str
    version: int
    sha256: str
    content: str
    signatures: list[Signature]
    published_at: Instant
    effective_from: Instant

    @property
    def key(self) -> str:
        return self.agreement


EVENTS: Mapping[str, type[Event]] = {
    event.type: event
    for event in (
        ActivityRecorded,
        IdentityMerged,
        TouchRecorded,
        OpportunityChanged,
        LeadScored,
        MqlQualified,
        MqlRetractionRequested,
        LeadMerged,
        LeadErased,
        HandoffAssigned,
        HandoffUnrouted,
        HandoffAccepted,
        HandoffTouched,
        HandoffRejected,
        HandoffRecycled,
        HandoffReassigned,
        HandoffExpired,
        HandoffQualified,
        HandoffOpportunity,
        HandoffWon,
        HandoffLost,
        HandoffRetracted,
        HandoffRetractionRefused,
        HandoffMerged,
        SlaWarned,
        SlaBreached,
        SlaMet,
        NurtureSuspended,
        NurtureRequested,
        NurtureResumed,
        AgreementPublished,
    )
}
