"""The HTTP face of handoff: `/v1/handoffs`, `/v1/reps`, and `/v1/agreements` (agreement_api.py)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from services.handoff import reading, review
from services.handoff.agreement_api import agreement_routes
from services.handoff.agreement_store import NEWEST
from services.handoff.answers import IdempotencyKey, answer_once, response_of
from services.handoff.lifecycle import State
from services.handoff.review import NoSuchHandoff, Verb, Word
from shared.db import Database, Session
from shared.given import CLEAN, Instant
from shared.idempotency import Answer
from shared.security import Keyring, Principal
from shared.web import decode_cursor, etag, if_match, requires

LIMIT = 50
MAX_LIMIT = 200
MAX_NOTE = 4000

Name = Annotated[str, Field(min_length=1, max_length=320), CLEAN]
Note = Annotated[str, Field(max_length=MAX_NOTE), CLEAN]
WordOfList = Annotated[str, Field(max_length=100), CLEAN]


class Said(BaseModel):
    """Who says it: a rep's id or e-mail; of somebody who is no rep, the e-mail."""

    model_config = ConfigDict(extra="forbid")
    by: Name
    note: Note | None = None


class Reasoned(Said):
    """`reason`: from the agreement's list; a wrong or missing one is answered with the list."""

    reason: WordOfList | None = None


class Touched(BaseModel):
    """`occurred_at`: with its zone, from 1970 on and before 2200; now, without one, and never later."""

    model_config = ConfigDict(extra="forbid")
    by: Name
    kind: WordOfList | None = None
    occurred_at: Instant | None = None


def routes(database: Database, keyring: Keyring) -> APIRouter:
    """Everything handoff answers over HTTP."""
    router = APIRouter()
    router.include_router(_handoff_routes(database, keyring))
    router.include_router(agreement_routes(database, keyring))
    return router


def _handoff_routes(database: Database, keyring: Keyring) -> APIRouter:
    """Reading needs the scope `handoffs:read`; accept, reject, recycle and touch `handoffs:write` and an If-Match."""
    router = APIRouter(prefix="/v1", tags=["handoffs"])
    reader = requires(keyring, "handoffs:read")
    writer = requires(keyring, "handoffs:write")

    @router.get("/handoffs", dependencies=[Depends(reader)])
    async def page(
        state: State | None = None,
        owner: str | None = None,
        lead: str | None = None,
        cursor: str | None = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = LIMIT,
    ) -> dict[str, Any]:
        """From the newest."""
        before = decode_cursor(cursor, datetime, str) if cursor else NEWEST
        given = {"state": state, "owner": owner, "lead": lead}
        filters = {name: value for name, value in given.items() if value}
        return await database.read(
            lambda session: reading.page(session, before=(before[0], before[1]), size=limit, filters=filters)
        )

    @router.get("/handoffs/{handoff_id}", dependencies=[Depends(reader)])
    async def one(handoff_id: str, response: Response) -> dict[str, Any]:
        """Everything about one; its ETag is what a transition needs as If-Match."""
        found = await database.read(lambda session: reading.find(session, handoff_id))
        if found is None:
            raise NoSuchHandoff
        response.headers.update(etag(found["version"]))
        return found

    @router.get("/reps", dependencies=[Depends(reader)])
    async def reps() -> dict[str, Any]:
        """The people of the agreement in force, with their open handoffs."""
        return await database.read(reading.reps)

    async def say(
        request: Request, handoff_id: str, verb: Verb, word: Word, key: str | None, caller: Principal
    ) -> Response:
        """Do it once, and answer with the handoff as it is then."""
        expected = if_match(request)

        async def work(session: Session) -> Answer:
            cause = f"{review.SOURCE}:{caller.id}"
            after = await review.review(session, handoff_id, verb, word, expected=expected, cause=cause)
            return Answer(200, await reading.detail(session, after))

        answer = await answer_once(database, request, caller, key, work)
        return response_of(answer, etag(answer.body["version"]))

    @router.post("/handoffs/{handoff_id}/accept")
    async def accept(
        handoff_id: str, said: Said, request: Request, key: IdempotencyKey = None, caller: Principal = Depends(writer)
    ) -> Response:
        """The owner will work on it."""
        return await say(request, handoff_id, "accept", Word(said.by, note=said.note), key, caller)

    @router.post("/handoffs/{handoff_id}/reject")
    async def reject(
        handoff_id: str,
        said: Reasoned,
        request: Request,
        key: IdempotencyKey = None,
        caller: Principal = Depends(writer),
    ) -> Response:
        """Not this one: back to nurture, or to another rep, as the reason says."""
        return await say(request, handoff_id, "reject", Word(said.by, said.reason, said.note), key, caller)

    @router.post("/handoffs/{handoff_id}/recycle")
    async def recycle(
        handoff_id: str,
        said: Reasoned,
        request: Request,
        key: IdempotencyKey = None,
        caller: Principal = Depends(writer),
    ) -> Response:
        """Not now: back to nurture during the work."""
        return await say(request, handoff_id, "recycle", Word(said.by, said.reason, said.note), key, caller)

    @router.post("/handoffs/{handoff_id}/touch")
    async def touch(
        handoff_id: str,
        said: Touched,
        request: Request,
        key: IdempotencyKey = None,
        caller: Principal = Depends(writer),
    ) -> Response:
        """The owner called, mailed or met the lead."""
        word = Word(said.by, kind=said.kind, occurred_at=said.occurred_at)
        return await say(request, handoff_id, "touch", word, key, caller)

    return router
