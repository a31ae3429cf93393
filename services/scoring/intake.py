"""The doors to the outside: Segment's calls, HubSpot's webhooks, Baton's own REST. Answered 2xx only after the commit.

    POST /v1/{track,identify,page,screen,group,alias,batch}   write key by Basic auth (or `writeKey` in the body)
    POST /webhooks/{source}                                   signature over the exact body and the configured URL
    POST /v1/activities                                       API key with activities:write

What is ours to fix is 503 with Retry-After. A sender does not repeat a 4xx: only what it could do better is one.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Depends, Request
from pydantic import SecretStr
from starlette.responses import JSONResponse

from services.scoring.arrivals import Delivery, Verdict
from services.scoring.bodies import require_type, unpacked
from services.scoring.door import Door, DoorClosed
from services.scoring.sources import hubspot, rest, segment
from services.scoring.sources.reading import Malformed, parse
from shared.clock import Clock, system_clock
from shared.security import Keyring, Principal, Scope
from shared.telemetry import metrics
from shared.web import RETRY_AFTER, Problem, requires

JSON = ("application/json",)
JSON_OF_BROWSERS = ("application/json", "text/plain")  # a beacon cannot say application/json without a preflight
BODY_LIMITS = {
    **{f"/v1/{call}": segment.MAX_BATCH_BYTES for call in (*segment.CALLS, "batch")},
    "/webhooks/": hubspot.MAX_BODY_BYTES,
    "/v1/activities": rest.MAX_BODY_BYTES,
}  # held before the routes see anything, by `shared.middleware.BoundedBody`


@dataclass(frozen=True, slots=True)
class Senders:
    """Who may come in without an API key. `public_url`: ours as senders know it, for it is part of what they sign."""

    public_url: str
    segment_write_keys: Mapping[str, SecretStr] = field(default_factory=dict)
    hubspot_secrets: Mapping[str, SecretStr] = field(default_factory=dict)


def intake_routes(door: Door, keyring: Keyring, senders: Senders, clock: Clock = system_clock) -> APIRouter:
    """The routes of the door."""
    router = APIRouter()
    may_write = requires(keyring, Scope.ACTIVITIES_WRITE)

    async def segment_call(request: Request) -> JSONResponse:
        return await _segment(request, door, senders)

    for call in (*segment.CALLS, "batch"):
        router.add_api_route(f"/v1/{call}", segment_call, methods=["POST"], name=f"segment_{call}")

    @router.post("/webhooks/{source}")
    async def webhook(source: str, request: Request) -> JSONResponse:
        return await _hubspot(request, source, door, senders, clock)

    @router.post("/v1/activities")
    async def activities(request: Request, caller: Principal = Depends(may_write)) -> JSONResponse:
        return await _rest(request, caller, door)

    return router


async def _segment(request: Request, door: Door, senders: Senders) -> JSONResponse:
    require_type(request, JSON_OF_BROWSERS)
    key = _basic_user(request)
    source = None if key is None else _sender_of(senders.segment_write_keys, key)
    if key is not None and source is None:
        raise _unknown_write_key()
    body = await request.body()
    parsed = _parsed(unpacked(request, body, limit=segment.MAX_BATCH_BYTES))
    source = source or _sender_of(senders.segment_write_keys, segment.write_key(parsed) or "")
    if source is None:
        raise _unknown_write_key()
    try:
        items = segment.arrivals(request.url.path.rpartition("/")[2], parsed)
    except segment.NotSegment as error:
        raise _malformed(str(error)) from error
    verdicts = await _submit(door, Delivery(f"segment:{source}", body, items))
    return JSONResponse({"success": True, "rejected": _rejected(verdicts)})


async def _hubspot(request: Request, source: str, door: Door, senders: Senders, clock: Clock) -> JSONResponse:
    body = await request.body()
    if not _is_signed(request, body, senders.public_url, senders.hubspot_secrets.get(source), clock):
        metrics.keys_refused.labels("signature").inc()
        text = "the signature is missing, wrong or too old, or there is no such source"
        raise Problem(401, "/problems/signature-wrong", "Signature not accepted", text)
    verdicts = await _submit(door, Delivery(f"hubspot:{source}", body, hubspot.arrivals(source, body)))
    return JSONResponse({"results": _results(verdicts)})


async def _rest(request: Request, caller: Principal, door: Door) -> JSONResponse:
    require_type(request, JSON)
    body = await request.body()
    try:
        items = rest.arrivals(_parsed(unpacked(request, body, limit=rest.MAX_BODY_BYTES)))
    except rest.NotAnItem as error:
        raise _malformed(str(error)) from error
    verdicts = await _submit(door, Delivery(f"api:{caller.id}", body, items))
    return JSONResponse({"results": _results(verdicts)})


async def _submit(door: Door, delivery: Delivery) -> list[Verdict]:
    try:
        verdicts = await door.submit(delivery)
    except DoorClosed as error:
        raise Problem(503, "/problems/unavailable", "Unavailable", str(error), RETRY_AFTER) from error
    for verdict in verdicts:
        metrics.items_received.labels(delivery.source.partition(":")[0], verdict.status).inc()
    return verdicts


def _parsed(body: bytes) -> Any:
    try:
        return parse(body)
    except Malformed as error:
        raise _malformed(str(error)) from error


def _malformed(detail: str) -> Problem:
    return Problem(400, "/problems/malformed-body", "Malformed body", detail)


def _results(verdicts: Sequence[Verdict]) -> list[dict[str, str | None]]:
    return [
        {"status": verdict.status, "id": verdict.id, "lead_id": verdict.lead_id}
        | ({"reason": verdict.reason} if verdict.reason else {})
        for verdict in verdicts
    ]


def _rejected(verdicts: Sequence[Verdict]) -> list[dict[str, int | str | None]]:
    return [
        {"index": index, "id": verdict.id, "reason": verdict.reason}
        for index, verdict in enumerate(verdicts)
        if verdict.status == "rejected"
    ]


def _basic_user(request: Request) -> str | None:
    """The user of Basic auth; None if nobody is named."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(encoded.strip(), validate=True).decode().partition(":")[0] or None
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _sender_of(keys: Mapping[str, SecretStr], key: str) -> str | None:
    """Whose write key this is. Looks at all of them, so that time tells nothing."""
    given = key.encode("utf-8", "replace")
    found = None
    for source, secret in keys.items():
        if hmac.compare_digest(secret.get_secret_value().encode(), given):
            found = source
    return found if given else None


def _unknown_write_key() -> Problem:
    metrics.keys_refused.labels("write_key").inc()
    text = "send the write key as the user name of Basic auth, without a password, or as `writeKey` in the body"
    return Problem(
        401, "/problems/key-wrong", "Write key not accepted", text, {"WWW-Authenticate": 'Basic realm="baton"'}
    )


def _is_signed(request: Request, body: bytes, public_url: str, secret: SecretStr | None, clock: Clock) -> bool:
    signatures = request.headers.getlist("x-hubspot-signature-v3")
    timestamps = request.headers.getlist("x-hubspot-request-timestamp")
    is_complete = len(signatures) == 1 and len(timestamps) == 1
    signature, timestamp = (signatures[0], timestamps[0]) if is_complete else ("", "")
    url = public_url.rstrip("/").encode() + _target(request)
    signed = request.method.encode() + hubspot.signed_url(url) + body
    plain = secret.get_secret_value() if secret is not None else None
    return hubspot.is_signed(plain, signature, timestamp, signed, now=clock())


def _target(request: Request) -> bytes:
    """Path and query exactly as they came; never the Host header, which the sender of a forgery chooses."""
    path: bytes = request.scope.get("raw_path") or request.url.path.encode()
    query: bytes = request.scope.get("query_string", b"")
    return path.partition(b"?")[0] + (b"?" + query if query else b"")
