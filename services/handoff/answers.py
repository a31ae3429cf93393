"""How this service answers a POST: its work and its answer are one transaction, repeated by nobody."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated

from fastapi import Header, Request, Response

from shared.db import Database, Session
from shared.idempotency import Answer, once, request_hash
from shared.security import Principal

IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=255)]


async def answer_once(
    database: Database,
    request: Request,
    caller: Principal,
    key: str | None,
    work: Callable[[Session], Awaitable[Answer]],
) -> Answer:
    """Do the work in a transaction, once per caller and Idempotency-Key; what it says, or said the first time."""
    asked = request_hash(request.method, request.url.path, await request.body())

    async def transaction(session: Session) -> Answer:
        return await once(session, scope=caller.id, key=key, request_hash=asked, work=lambda: work(session))

    return await database.run(transaction)


def response_of(answer: Answer, headers: Mapping[str, str] | None = None) -> Response:
    """The HTTP form of an answer; one that was kept says so."""
    repeated = {"Idempotent-Replayed": "true"} if answer.is_repeat else {}
    return Response(json.dumps(answer.body), answer.status, {**(headers or {}), **repeated}, "application/json")
