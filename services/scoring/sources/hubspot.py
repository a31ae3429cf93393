"""HubSpot's webhooks: signed (version 3), up to a hundred events a request, each with its own verdict. Pure.

    contact.creation        -> contact_created
    contact.propertyChange  -> attributes_changed: one property; contact details stay in scoring's tables
    contact.merge           -> identities_joined

HubSpot does not repeat what was answered 4xx: an authentic request is taken, and what cannot be used is kept with its
reason. `eventId` is not unique, so that an event is known by all that does not change when HubSpot sends it again.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from services.scoring.arrivals import Activity, Arrival, Unusable, content_id, encoded
from services.scoring.resolve import Claim
from services.scoring.sources.claims import Given, claim, merged, with_mailbox
from services.scoring.sources.facts import Excess, traits
from services.scoring.sources.reading import Malformed, parse, when
from shared.events import Scalar
from shared.security import hmac_sha256

TOLERANCE = timedelta(minutes=5)
MAX_BODY_BYTES = 1_000_000
MAX_EVENTS = 100
UNKNOWN_SECRET = "nobody"  # so that an unknown source takes as long as a wrong signature
MAX_TOLD = 60

# What HubSpot decodes in a URL before it signs it, and nothing else; the letters of an escape in either case.
SIGNED_DECODED = {escape: bytes.fromhex(escape.decode()) for escape in b"3A 2F 3F 40 21 24 27 28 29 2A 2C 3B".split()}
ESCAPE = re.compile(rb"%(" + b"|".join(SIGNED_DECODED) + rb")", re.IGNORECASE)

IDENTIFYING = ("portalId", "subscriptionId", "subscriptionType", "eventId", "objectId", "occurredAt", "propertyName")


class NotHubSpot(ValueError):
    """An authentic event of a shape or kind that cannot be used."""


def is_signed(secret: str | None, signature: str, timestamp: str, request: bytes, *, now: datetime) -> bool:
    """Whether `signature` is HubSpot's for `request`, not older than five minutes.

    `request`: method, `signed_url` and exact body, in one. `secret` None, an unknown source, takes the same time as a
    wrong signature.
    """
    content = request + timestamp.encode()
    expected = base64.b64encode(hmac_sha256(secret or UNKNOWN_SECRET, content))
    is_equal = hmac.compare_digest(expected, signature.encode("utf-8", "replace"))
    return secret is not None and is_equal and _is_recent(timestamp, now)


def signed_url(url: bytes) -> bytes:
    """A URL as it came, in the form in which HubSpot signs it."""
    return ESCAPE.sub(lambda escape: SIGNED_DECODED[escape[1].upper()], url)


def arrivals(source: str, body: bytes) -> list[Arrival | Unusable]:
    """What an authentic request holds. `source` names the CRM's ids: `crm:<source>`."""
    try:
        events = parse(body)
    except Malformed as error:
        return [Unusable(str(error), content_id(body), body)]
    if not isinstance(events, list) or len(events) > MAX_EVENTS:
        reason = f"the body is a list of at most {MAX_EVENTS} events"
        return [Unusable(reason, content_id(body), body)]
    return [_arrival(source, event) for event in events]


def _is_recent(timestamp: str, now: datetime) -> bool:
    if not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 15:
        return False
    sent_at = when(int(timestamp)).claimed_at
    return sent_at is not None and abs(now - sent_at) <= TOLERANCE


def _arrival(source: str, event: Any) -> Arrival | Unusable:
    content = {name: event.get(name) for name in IDENTIFYING} if isinstance(event, dict) else event
    name = content_id(encoded(content))
    try:
        if not isinstance(event, dict):
            raise NotHubSpot("an event is a JSON object")
        return _usable(source, event, name)
    except ValueError as error:
        return Unusable(str(error), name, encoded(event))


def _usable(source: str, event: Mapping[str, Any], name: str) -> Arrival:
    excess = Excess()
    contact, attributes = _facts(event, excess)
    return Arrival(
        source_id=name,
        item=encoded({key: value for key, value in event.items() if key != "attemptNumber"}),
        claim=_claim(source, event, contact.get("email") or None),
        what=Activity(_kind(event), {}, attributes),
        when=when(event.get("occurredAt")),
        contact=with_mailbox(contact),
        note=str(excess),
    )


def _kind(event: Mapping[str, Any]) -> str:
    match event.get("subscriptionType"):
        case "contact.creation":
            return "contact_created"
        case "contact.propertyChange":
            return "attributes_changed"
        case "contact.merge":
            return "identities_joined"
        case str() as other:
            raise NotHubSpot(f"{other[:MAX_TOLD]!r} is not a subscription that Baton takes yet")
    raise NotHubSpot("`subscriptionType` is missing")


def _claim(source: str, event: Mapping[str, Any], email: str | None) -> Claim:
    _kind(event)
    if event.get("subscriptionType") == "contact.merge":
        others = event.get("mergedObjectIds")
        survivors = [event[key] for key in ("newObjectId", "primaryObjectId", "objectId") if event.get(key) is not None]
        return merged(source, [*survivors, *(others if isinstance(others, list) else [])])
    if event.get("objectId") is None:
        raise NotHubSpot("`objectId` is missing: nobody knows whose event this is")
    return claim(Given(crm={source: event["objectId"]}, email=email))


def _facts(event: Mapping[str, Any], excess: Excess) -> tuple[dict[str, str], dict[str, Scalar]]:
    if event.get("subscriptionType") != "contact.propertyChange":
        return {}, {}
    name = event.get("propertyName")
    if not isinstance(name, str) or not name:
        raise NotHubSpot("`propertyName` is missing")
    return traits({name: event.get("propertyValue")}, excess)
