"""Segment's HTTP tracking API, as its own clients and the trackers that speak its format call it. Pure.

    track     -> the event's name in snake case, with its properties
    page      -> page_viewed: path, url and referrer without query, title, name, utm_*
    screen    -> screen_viewed
    identify  -> attributes_changed: traits that are no contact details; the others stay in scoring's tables
    group     -> attributes_changed: traits of the company, under `company.`
    alias     -> identities_joined: the previous id and the user id are one person

The id of a message is its `messageId`. `timestamp` is corrected by what our clock reads at receipt less `sentAt`.
`user_id`, `User ID` and `action` pass for `userId` and `type`: senders write them, and so do Segment's own examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.scoring.arrivals import Activity, Arrival, Unusable, content_id, encoded, source_id
from services.scoring.resolve import Claim
from services.scoring.sources.claims import Given, alias, claim, with_mailbox
from services.scoring.sources.facts import Excess, campaign, properties, traits, without_query
from services.scoring.sources.reading import snake, when

CALLS = ("track", "identify", "page", "screen", "group", "alias")
MAX_BATCH_BYTES = 500 * 1024  # Segment's own limits
MAX_ITEM_BYTES = 32 * 1024
NOT_CONTENT = frozenset({"sent_at", "received_at", "write_key"})

Message = dict[str, Any]


class NotSegment(ValueError):
    """JSON, but not of this API; says what was expected."""


def write_key(body: Any) -> str | None:
    """The write key in a body, where a browser that cannot set headers puts it."""
    key = body.get("writeKey") if isinstance(body, Mapping) else None
    return key if isinstance(key, str) else None


def arrivals(call: str, body: Any) -> list[Arrival | Unusable]:
    """What is in the body of `POST /v1/<call>`. Raises `NotSegment`."""
    if not isinstance(body, Mapping):
        raise NotSegment("the body is a JSON object")
    if call != "batch":
        return [_arrival({**_named(body), "type": call})]
    messages = body.get("batch")
    if not isinstance(messages, list):
        raise NotSegment("`batch` is a list of messages")
    envelope = _named(body)
    return [_arrival(_in_batch(message, envelope)) for message in messages]


def _in_batch(message: Any, envelope: Message) -> Any:
    if not isinstance(message, Mapping):
        return message
    named = _named(message)
    context = {**_mapping(envelope.get("context")), **_mapping(named.get("context"))}
    return {**named, "context": context, "sent_at": named.get("sent_at", envelope.get("sent_at"))}


def _named(message: Mapping[str, Any]) -> Message:
    return {snake(str(name)): value for name, value in message.items()}


def _arrival(message: Any) -> Arrival | Unusable:
    content = message
    if isinstance(message, Mapping):
        content = {name: value for name, value in message.items() if name not in NOT_CONTENT}
    item = encoded(content)
    name = content_id(item)
    try:
        if not isinstance(message, dict):
            raise NotSegment("a message is a JSON object")
        name = source_id(message.get("message_id"), item)
        if len(item) > MAX_ITEM_BYTES:
            raise NotSegment(f"a message has at most {MAX_ITEM_BYTES} bytes")
        return _usable(message, name, item)
    except ValueError as error:
        return Unusable(str(error), name, item)


def _usable(message: Message, name: str, item: bytes) -> Arrival:
    call = message.get("type") or message.get("action")
    if call not in CALLS:
        raise NotSegment(
            "not a call that Baton takes yet" if call == "delete" else f"`type` is one of {', '.join(CALLS)}"
        )
    told = _traits(message, str(call))
    excess = Excess()
    contact, attributes = traits(told, excess)
    return Arrival(
        source_id=name,
        item=item,
        claim=_claim(message, str(call), told),
        what=Activity(_kind(message, str(call)), _properties(message, str(call), excess), attributes),
        when=when(message.get("original_timestamp") or message.get("timestamp"), message.get("sent_at")),
        contact=with_mailbox(contact),
        note=str(excess),
    )


def _claim(message: Message, call: str, told: Mapping[str, Any]) -> Claim:
    given = Given(
        user_id=message.get("user_id"),
        email=told.get("email"),
        anonymous_id=message.get("anonymous_id"),
        same_as=message.get("previous_id"),
    )
    return alias(given) if call == "alias" else claim(given)


def _traits(message: Message, call: str) -> dict[str, Any]:
    """Facts about the person; a group's are about the company."""
    of_person = _mapping(_mapping(message.get("context")).get("traits"))
    told = _mapping(message.get("traits"))
    return {**of_person, "company": told} if call == "group" else {**of_person, **told}


def _kind(message: Message, call: str) -> str:
    match call:
        case "track":
            kind = snake(event) if isinstance(event := message.get("event"), str) else ""
            if not kind:
                raise NotSegment("`event` names what happened")
            return kind
        case "alias":
            return "identities_joined"
        case "page" | "screen":
            return f"{call}_viewed"
    return "attributes_changed"


def _properties(message: Message, call: str, excess: Excess) -> dict[str, Any]:
    own = _mapping(message.get("properties"))
    context = _mapping(message.get("context"))
    if call not in ("page", "screen"):
        return {**properties(own, excess), **(campaign(None, context) if call == "track" else {})}
    page = {**_mapping(context.get("page")), **own} if call == "page" else own
    named = {name: message[name] for name in ("name", "category") if isinstance(message.get(name), str)}
    told = properties({**page, **named}, excess)
    kept = {name: value for name, value in told.items() if name != "search"}
    return {**_located(kept), **campaign(page.get("url"), context)}


def _located(page: dict[str, Any]) -> dict[str, Any]:
    """With the path that rules look at, also where the sender gave the address alone."""
    path = page.get("path")
    if isinstance(path, str):
        return {**page, "path": without_query(path) or "/"}
    url = page.get("url")
    if not isinstance(url, str) or "//" not in url:
        return page
    return {**page, "path": "/" + url.partition("//")[2].partition("/")[2]}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
