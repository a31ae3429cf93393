"""Who is told what: an event, and what is known about its lead, in; one message per receiver and channel out. Pure.

The owner hears of an assignment and of a clock that runs out, the manager of a breach, the head of sales of a lead that
nobody has. Marketing's automation hears of the nurture lock, by a thin signed webhook.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, timedelta
from enum import StrEnum

from services.notifier.render import Text, mail, slack_payload
from services.notifier.schedule import dues, local_time, zone_of_policy
from shared.agreement import Agreement
from shared.events import (
    Event,
    HandoffAssigned,
    HandoffEvent,
    HandoffReassigned,
    HandoffUnrouted,
    MqlQualified,
    NurtureEvent,
    NurtureRequested,
    NurtureResumed,
    SlaBreached,
    SlaEvent,
    SlaWarned,
)

AUTOMATION_RECEIVER = "marketing-automation"
UNKNOWN_RECEIVER = "unknown"
REASONS_SHOWN = 4
STALE_AFTER: Mapping[type[Event], timedelta] = {
    HandoffAssigned: timedelta(days=1),
    HandoffReassigned: timedelta(days=1),
    HandoffUnrouted: timedelta(days=1),
    SlaWarned: timedelta(hours=1),  # after that it is a breach or it is met
    SlaBreached: timedelta(days=1),
    NurtureEvent: timedelta(days=14),  # a lock that was never lifted stays: late is better than not at all
}
IDENTITIES = ("email", "anonymous_id", "user_id")
CRM_PREFIX = "crm"  # contact keys such as `crm.hubspot`


class Channel(StrEnum):
    EMAIL = "email"
    SLACK = "slack"
    AUTOMATION = "automation"


PEOPLE = (Channel.EMAIL, Channel.SLACK)


@dataclass(frozen=True, slots=True)
class Known:
    """What the notifier has read by now; None: not yet, or forgotten."""

    mql: MqlQualified | None
    agreement: Agreement | None


@dataclass(frozen=True, slots=True)
class Desk:
    """What this deployment can do: the channels that are configured, and where handoffs are looked at."""

    channels: frozenset[Channel]
    console_url: str


@dataclass(frozen=True, slots=True)
class Message:
    """What one receiver is sent through one channel. `problem`: why it cannot be sent at all."""

    receiver: str
    channel: Channel
    content: Mapping[str, str]
    stale_after: timedelta
    line: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody of sales. `address` None: the agreement as known here has no such person."""

    name: str
    address: str | None
    slack: str | None = None


def is_told(event: Event) -> bool:
    """Whether anybody hears of this kind of event."""
    return stale_after(event) is not None


def stale_after(event: Event) -> timedelta | None:
    """After which time nobody wants to hear of it any more; None: nobody wants to hear of it at all.

    A breach names the manager where the agreement says that he is to be told (`on_breach: [notify_manager]`). That a
    handoff expired needs no message: its new owner is told, or sales' head, if nobody can take it.
    """
    if isinstance(event, SlaBreached) and event.manager is None:
        return None
    return next((limit for kind, limit in STALE_AFTER.items() if isinstance(event, kind)), None)


def compose(event: Event, known: Known, desk: Desk) -> list[Message]:
    """The messages that this event makes; none if nobody is told."""
    limit = stale_after(event)
    if limit is None:
        return []
    if isinstance(event, NurtureEvent):
        return [_to_automation(event, known, desk, limit)]
    if isinstance(event, HandoffEvent | SlaEvent):
        person, text = _to_person(event, known, desk)
        return list(_to_channels(person, text, desk, limit))
    return []


def _to_channels(person: Person, text: Text, desk: Desk, limit: timedelta) -> Iterable[Message]:
    """The same text on every channel that reaches the person; one message that says why, if none does."""
    receiver = person.address or person.name or UNKNOWN_RECEIVER
    reaching = [channel for channel in PEOPLE if channel in desk.channels]
    if person.address is None or not reaching:
        problem = "no channel configured" if person.address else "the agreement names no address"
        yield Message(receiver, Channel.EMAIL, {}, limit, problem=problem)
        return
    if Channel.EMAIL in reaching:
        yield Message(receiver, Channel.EMAIL, mail(text, to=person.address), limit)
    if Channel.SLACK in reaching:
        yield Message(receiver, Channel.SLACK, slack_payload(text, mention=person.slack), limit)


def _to_automation(event: NurtureEvent, known: Known, desk: Desk, limit: timedelta) -> Message:
    """Ids, the track and its reason, and by what marketing's tool may know the lead; nothing else leaves."""
    data: dict[str, object] = {
        "handoff_id": event.handoff_id,
        "mql_id": event.mql_id,
        "lead_id": event.lead_id,
        "version": event.version,
        "identities": _identities(known.mql),
    }
    if isinstance(event, NurtureRequested | NurtureResumed):
        data["is_locked"] = event.is_locked
    if isinstance(event, NurtureRequested):
        wake_at = event.wake_at.isoformat() if event.wake_at else None
        data |= {"track": event.track, "reason": event.reason, "reason_class": event.reason_class, "wake_at": wake_at}
    body = json.dumps({"type": event.type, "timestamp": event.at.isoformat(), "data": data}, separators=(",", ":"))
    problem = None if Channel.AUTOMATION in desk.channels else "no channel configured"
    content = {} if problem else {"body": body}
    return Message(AUTOMATION_RECEIVER, Channel.AUTOMATION, content, limit, event.opened_for, problem)


def _identities(mql: MqlQualified | None) -> dict[str, str]:
    contact = mql.contact if mql else {}
    return {name: value for name, value in contact.items() if name in IDENTITIES or name.startswith(CRM_PREFIX)}


def _to_person(event: HandoffEvent | SlaEvent, known: Known, desk: Desk) -> tuple[Person, Text]:
    link = f"{desk.console_url}/v1/handoffs/{event.handoff_id}"
    why = _why(known.mql)
    match event:
        case HandoffAssigned() | HandoffReassigned():
            said = "It is yours now, passed on to you." if isinstance(event, HandoffReassigned) else "It is yours now."
            text = Text("A lead for you", known.mql, link, said, why, _dues(event, known))
            return _owner(event, known.agreement), text
        case SlaWarned():
            text = Text(f"{_milestone(event)} is due soon", known.mql, link, _deadline(event, known.agreement), why)
            return _owner(event, known.agreement), text
        case SlaBreached():
            owner = _owner(event, known.agreement).name or "nobody"
            said = f"{_deadline(event, known.agreement)} The owner was {owner}."
            return _manager(event, known.agreement), Text(f"{_milestone(event)} was missed", known.mql, link, said, why)
        case HandoffUnrouted():
            said = f"Nobody of the pool {event.pool} can take it{_why_nobody(event, known.agreement)}."
        case _:
            said = ""
    return _head(known.agreement), Text("A lead without an owner", known.mql, link, said, why)


def _why_nobody(event: HandoffUnrouted, agreement: Agreement | None) -> str:
    """The reason of each candidate, by name."""
    reasons = "; ".join(f"{_name(rep, agreement)} {why}" for rep, why in event.candidates.items())
    return f": {reasons}" if reasons else ""


def _name(rep_id: str, agreement: Agreement | None) -> str:
    rep = agreement.rep(rep_id) if agreement else None
    return rep.name if rep else rep_id


def _owner(event: HandoffEvent | SlaEvent, agreement: Agreement | None) -> Person:
    """The rep who owns the handoff; or, of a last resort, the party's head by address."""
    if event.owner is None:
        return Person("", None)
    rep = agreement.rep(event.owner) if agreement else None
    if rep is not None:
        return Person(rep.name, rep.email, rep.slack)
    return Person(event.owner, agreement.email_of(event.owner) if agreement else None)


def _manager(event: SlaBreached, agreement: Agreement | None) -> Person:
    """Whom the event names: the owner's manager, or the head of sales where he has none."""
    if event.manager is None:
        return _head(agreement)
    rep = agreement.rep_by_performer(event.manager) if agreement else None
    return Person(event.manager, event.manager, rep.slack if rep else None)


def _head(agreement: Agreement | None) -> Person:
    head = agreement.parties.sales.head if agreement else None
    return Person(head or "head of sales", head)


def _why(mql: MqlQualified | None) -> tuple[str, ...]:
    """The rules that scored most, as the agreement names them."""
    if mql is None:
        return ()
    rules = [line for line in mql.explanation if line.kind == "rule" and line.points > 0]
    rules.sort(key=lambda line: (-line.points, line.dimension, line.rule or ""))
    hand = ("raised a hand",) if mql.raised_hand else ()
    top = (f"{line.rule} ({line.dimension}): +{line.points:g}" for line in rules[: REASONS_SHOWN - len(hand)])
    return (*hand, *top)


def _dues(event: HandoffEvent, known: Known) -> tuple[str, ...]:
    if known.mql is None or known.agreement is None:
        return ()
    return tuple(f"{name}: {when}" for name, when in dues(known.agreement, known.mql, assigned_at=event.at))


def _milestone(event: SlaEvent) -> str:
    return event.milestone.replace("_", " ").capitalize()


def _deadline(event: SlaEvent, agreement: Agreement | None) -> str:
    zone = zone_of_policy(agreement, event.policy) if agreement else UTC
    return f"The deadline is {local_time(event.due_at, zone)}."
