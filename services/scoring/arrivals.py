"""What comes through the door: a delivery (one request's exact bytes) of arrivals, and the verdict each one gets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal

import msgspec

from services.scoring.resolve import Claim
from shared.events import Scalar

EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)  # an older activity is a clock that was never set
MAX_SOURCE_ID = 256


@dataclass(frozen=True, slots=True)
class Activity:
    """Something the lead did, or facts learnt; neither holds contact details."""

    kind: str
    properties: Mapping[str, Scalar] = field(default_factory=dict)
    attributes: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Touch:
    """Something sales did for the lead; `crm`: in which CRM, if that is known."""

    kind: str
    by: str
    outcome: str | None = None
    crm: str | None = None


@dataclass(frozen=True, slots=True)
class Opportunity:
    """The state of a deal; `crm`: the CRM whose it is, if that is known."""

    opportunity_id: str
    stage: str
    name: str | None = None
    amount: Decimal | None = None
    currency: str | None = None
    owner: str | None = None
    product: str | None = None
    motion: str | None = None
    reason: str | None = None
    crm: str | None = None


@dataclass(frozen=True, slots=True)
class When:
    """What the sender says about time: `sent_at` by the same clock as `claimed_at`; `is_unreadable`: it is no time."""

    claimed_at: datetime | None = None
    sent_at: datetime | None = None
    is_unreadable: bool = False

    def occurred(self, received_at: datetime) -> tuple[datetime, bool]:
        """When it happened by our clock, and whether what the sender said had to be replaced by `received_at`.

        A sender that tells when it sent has its clock corrected by the difference to ours. Nothing happened later than
        it was received.
        """
        if self.claimed_at is None:
            return received_at, self.is_unreadable
        skew = received_at - self.sent_at if self.sent_at else timedelta()
        try:
            occurred_at = self.claimed_at + skew
        except OverflowError:
            return received_at, True
        is_plausible = EARLIEST <= occurred_at <= received_at
        return (occurred_at, False) if is_plausible else (received_at, True)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One item of a delivery that can be used. `item`: its content, without what differs between repetitions.

    `note`: what of it was left out, for the sender; empty if nothing was.
    """

    source_id: str
    item: bytes
    claim: Claim
    what: Activity | Touch | Opportunity
    when: When = When()
    contact: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def is_timeless(self) -> bool:
        """Whether nothing but its content tells it from the next one: it has neither an id nor a time."""
        return self.when.claimed_at is None and self.source_id == content_id(self.item)


@dataclass(frozen=True, slots=True)
class Unusable:
    """One item that cannot be used, and why, without values that may be personal. It is kept in quarantine."""

    reason: str
    source_id: str
    item: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request, as it came, and what is in it, in order."""

    source: str
    body: bytes
    items: Sequence[Arrival | Unusable]


@dataclass(frozen=True, slots=True)
class Entry:
    """One item on its way through the door, with the request it came in."""

    delivery_id: str
    source: str
    body: bytes
    traceparent: str
    item: Arrival | Unusable

    @property
    def key(self) -> tuple[str, str]:
        return self.source, self.item.source_id

    def of_day(self, received_at: datetime) -> Entry:
        """The same entry, known by its content for the day (UTC) on which it was received."""
        assert isinstance(self.item, Arrival)
        return replace(self, item=replace(self.item, source_id=f"{self.item.source_id}:{received_at:%Y-%m-%d}"))

    def refused(self, reason: str) -> Entry:
        """The same entry, found to be of no use."""
        return replace(self, item=Unusable(reason, self.item.source_id, self.item.item))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one item. `id`: the sender's id of it, or the one made from its content.

    `reason`: why it was rejected, or what of it was not taken.
    """

    status: Literal["accepted", "duplicate", "rejected"]
    id: str
    lead_id: str | None = None
    reason: str | None = None


def encoded(content: object) -> bytes:
    """The same bytes for the same content, whatever the order of its keys."""
    return msgspec.json.encode(content, order="deterministic")


def content_id(item: bytes) -> str:
    """The id of an item that its sender gave none."""
    return f"sha256:{hashlib.sha256(item).hexdigest()}"


def source_id(given: object, item: bytes) -> str:
    """The sender's id of an item, or one made from its content. Raises `ValueError` for an unusable one.

    So two items without ids and with the same content are one: a sender that means two says when each happened. Without
    a time either they are one for a day (`Entry.of_day`).
    """
    if given is None or given == "":
        return content_id(item)
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise ValueError("the id is neither text nor a whole number")
    text = str(given)
    if len(text) > MAX_SOURCE_ID or not text.isprintable() or "\ufffd" in text:
        raise ValueError(f"the id is longer than {MAX_SOURCE_ID} characters or holds unprintable ones")
    return text
