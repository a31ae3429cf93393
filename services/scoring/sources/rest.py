"""Baton's own format: `POST /v1/activities`, one item or a list of up to a thousand. Pure.

    {"kind": "demo_requested", "identities": {"email": "ana@acme.example"}, "properties": {"product": "robots"}}

`type` is `activity` (default), `touch` (what sales did) or `opportunity` (a deal). An item without an `id` is known by
its content; if it has no `occurred_at` either, for the day (UTC) on which it was received. Contact details are taken
from `attributes` under their names (`first_name`, `phone`, `company` ...). `crm` says in whose words a touch or a deal
is told (`hubspot`: its stages, its ids); left out, it is the namespace of `identities.crm`, if there is just one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, assert_never

import msgspec

from services.scoring.arrivals import Activity, Arrival, Opportunity, Touch, Unusable, content_id, encoded, source_id
from services.scoring.identity import namespace
from services.scoring.sources.claims import Given, claim, with_mailbox
from services.scoring.sources.facts import MAX_TEXT, Excess, properties, traits
from services.scoring.sources.reading import clean, snake, when

MAX_BODY_BYTES = 1_000_000
MAX_ITEMS = 1000
MAX_ITEM_BYTES = 64 * 1024


class NotAnItem(ValueError):
    """An item that lacks something, or a list that is too long; says what."""


class Identities(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ids of one person. Numbers pass for text."""

    email: str | None = None
    anonymous_id: str | int | None = None
    user_id: str | int | None = None
    crm: dict[str, str | int] = {}


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One item as it may be sent; what each `type` needs is checked afterwards."""

    type: Literal["activity", "touch", "opportunity"] = "activity"
    id: str | int | None = None
    kind: str = ""
    occurred_at: str | int | float | None = None
    lead_id: str | None = None
    identities: Identities = Identities()
    properties: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    by: str = ""
    outcome: str | None = None
    opportunity_id: str | int = ""
    stage: str = ""
    amount: str | int | float | None = None
    currency: str | None = None
    owner: str | None = None
    name: str | None = None
    reason: str | None = None
    product: str | None = None
    motion: str | None = None
    crm: str | None = None


def arrivals(body: Any) -> list[Arrival | Unusable]:
    """What is in the body. Raises `NotAnItem` if it is neither an object nor a list short enough."""
    if isinstance(body, list) and len(body) > MAX_ITEMS:
        raise NotAnItem(f"a list has at most {MAX_ITEMS} items")
    if not isinstance(body, list | dict):
        raise NotAnItem("the body is an object or a list of objects")
    return [_arrival(item) for item in (body if isinstance(body, list) else [body])]


def _arrival(given: Any) -> Arrival | Unusable:
    item = encoded(given)
    name = content_id(item)
    try:
        name = source_id(given.get("id") if isinstance(given, Mapping) else None, item)
        if len(item) > MAX_ITEM_BYTES:
            raise NotAnItem(f"an item has at most {MAX_ITEM_BYTES} bytes")
        return _usable(msgspec.convert(given, Item), name, item)
    except ValueError as error:  # msgspec.ValidationError is one; its message names the place, never the value
        return Unusable(str(error), name, item)


def _usable(sent: Item, name: str, item: bytes) -> Arrival:
    excess = Excess()
    contact, attributes = traits(sent.attributes, excess)
    email = sent.identities.email
    if email is not None:
        contact = {**contact, "email": email}
    given = Given(
        user_id=sent.identities.user_id,
        email=email,
        anonymous_id=sent.identities.anonymous_id,
        crm=sent.identities.crm,
        lead_id=sent.lead_id,
    )
    what = _what(sent)
    if isinstance(what, Activity):
        what = Activity(what.kind, properties(sent.properties, excess), attributes)
    return Arrival(name, item, claim(given), what, when(sent.occurred_at), with_mailbox(contact), str(excess))


def _what(item: Item) -> Activity | Touch | Opportunity:
    match item.type:
        case "activity":
            return Activity(_needed(snake(item.kind), "kind"))
        case "touch":
            by = _needed(_short(item.by), "by")
            return Touch(_needed(snake(item.kind), "kind"), by, _short(item.outcome) or None, _crm(item))
        case "opportunity":
            return _opportunity(item)
    assert_never(item.type)


def _opportunity(item: Item) -> Opportunity:
    return Opportunity(
        opportunity_id=_needed(_short(str(item.opportunity_id)), "opportunity_id"),
        stage=_needed(_short(item.stage), "stage"),
        name=_short(item.name) or None,
        amount=_amount(item.amount),
        currency=_short(item.currency) or None,
        owner=_short(item.owner) or None,
        product=_short(item.product) or None,
        motion=_short(item.motion) or None,
        reason=_short(item.reason) or None,
        crm=_crm(item),
    )


def _crm(item: Item) -> str | None:
    """The CRM that an item speaks of: the one it names, else that of the person's one CRM id."""
    named = item.crm or (next(iter(item.identities.crm)) if len(item.identities.crm) == 1 else None)
    return namespace(named) if named else None


def _needed(value: str, field: str) -> str:
    if not value:
        raise NotAnItem(f"`{field}` is missing")
    return value


def _short(text: str | None) -> str:
    return clean(text or "").strip()[:MAX_TEXT]


def _amount(given: str | float | None) -> Decimal | None:
    """Money, exact to the cent a sender wrote; at most 15 digits before the point."""
    if given is None or given == "":
        return None
    try:
        amount = Decimal(str(given))
    except InvalidOperation as error:
        raise NotAnItem("`amount` is no number") from error
    if not amount.is_finite() or not math.isfinite(float(amount)) or abs(amount) >= Decimal(10) ** 15:
        raise NotAnItem("`amount` is out of range")
    return round(amount, 4)
