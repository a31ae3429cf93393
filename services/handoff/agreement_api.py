"""`/v1/agreements`: drafts, signatures, publication. An agreement's id is the SHA-256 of its content."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from services.handoff import agreement, agreement_store
from services.handoff.agreement import PARTIES, Party
from services.handoff.agreement_store import Draft
from services.handoff.answers import IdempotencyKey, answer_once, response_of
from shared.db import Database, Session
from shared.given import CLEAN
from shared.idempotency import Answer
from shared.security import Keyring, Principal
from shared.web import Problem, decode_cursor, encode_cursor, requires

Sha256 = Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")]


class SignatureGiven(BaseModel):
    """`sha256`: of the content that the signer has read."""

    model_config = ConfigDict(extra="forbid")
    party: Party
    signed_by: Annotated[str, Field(max_length=320), CLEAN]
    sha256: Sha256


def agreement_routes(database: Database, keyring: Keyring) -> APIRouter:
    """Reading needs the scope `agreements:read`, everything else `agreements:write`."""
    router = APIRouter(prefix="/v1/agreements", tags=["agreements"])
    reader = requires(keyring, "agreements:read")
    writer = requires(keyring, "agreements:write")

    @router.post("", status_code=201)
    async def draft(request: Request, key: IdempotencyKey = None, caller: Principal = Depends(writer)) -> Response:
        """Keep a YAML body as a draft: 201, or 200 if this very content was there."""
        content = _text(await request.body())

        async def work(session: Session) -> Answer:
            found, is_new = await agreement.draft(session, content, created_by=caller.id)
            return Answer(201 if is_new else 200, summary(found))

        return response_of(await answer_once(database, request, caller, key, work))

    @router.get("")
    async def drafts(
        cursor: str | None = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        caller: Principal = Depends(reader),
    ) -> dict[str, Any]:
        """From the newest."""
        before = decode_cursor(cursor, datetime, str) if cursor else agreement_store.NEWEST
        found = await database.read(lambda session: agreement_store.page(session, before=before, size=limit + 1))
        page, last = found[:limit], found[limit - 1 : limit]
        is_more = len(found) > limit
        next_cursor = encode_cursor(last[0].created_at, last[0].sha256) if is_more else None
        return {"items": [summary(draft) for draft in page], "next": next_cursor}

    @router.get("/{sha256}")
    async def one(sha256: str, caller: Principal = Depends(reader)) -> dict[str, Any]:
        found = await database.read(lambda session: agreement_store.find(session, sha256.lower()))
        if found is None:
            raise agreement.NoSuchAgreement
        return {**summary(found), "content": found.content}

    @router.post("/{sha256}/signatures")
    async def sign(
        sha256: str,
        given: SignatureGiven,
        request: Request,
        key: IdempotencyKey = None,
        caller: Principal = Depends(writer),
    ) -> Response:
        async def work(session: Session) -> Answer:
            signed = await agreement.sign(
                session, sha256.lower(), party=given.party, signed_by=given.signed_by, signed_sha256=given.sha256
            )
            return Answer(200, summary(signed))

        return response_of(await answer_once(database, request, caller, key, work))

    @router.post("/{sha256}/publication")
    async def publish(
        sha256: str, request: Request, key: IdempotencyKey = None, caller: Principal = Depends(writer)
    ) -> Response:
        async def work(session: Session) -> Answer:
            return Answer(200, summary(await agreement.publish(session, sha256.lower())))

        return response_of(await answer_once(database, request, caller, key, work))

    return router


def summary(draft: Draft) -> dict[str, Any]:
    """A draft without its content."""
    names = (
        "agreement",
        "sha256",
        "version",
        "created_by",
        "created_at",
        "published_at",
        "effective_from",
        "signatures",
    )
    row = {name: getattr(draft, name) for name in names}
    shown: dict[str, Any] = msgspec.to_builtins({"id": draft.sha256, "state": _state(draft), **row})
    return shown


def _state(draft: Draft) -> str:
    if draft.version is not None:
        return "published"
    return "signed" if len(draft.signatures) == len(PARTIES) else "draft"


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        text = f"byte {error.start}: an agreement is UTF-8"
        raise Problem(422, "/problems/agreement-invalid", "This is no valid agreement", text) from error
