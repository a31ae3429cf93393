"""How this service answers a POST: its work and its answer are one transaction, repeated by nobody."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Header, Request, Response

from shared.db import Database, Session
from shared.idempotency import Answer, once, request_hash
from shared.security import Principal
from shared.web import PROBLEM_TYPE

IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=255)]


async def answer_once(
    database: Database,
    request: Request,
    caller: Principal,
    key: str | None,
    work: Callable[[Session], Awaitable[Answer]],
) -> Response:
    """Do the work in a transaction, once per caller and Idempotency-Key, and answer with what it says."""
    asked = request_hash(request.method, request.url.path, await request.body())

    async def transaction(session: Session) -> Answer:
        return await once(session, scope=caller.id, key=key, request_hash=asked, work=lambda: work(session))

    return response_of(await database.run(transaction))


def response_of(answer: Answer) -> Response:
    """The HTTP form of an answer; a kept one says so, as Stripe's do."""
    headers = {"Idempotent-Replayed": "true"} if answer.is_repeat else {}
    media_type = PROBLEM_TYPE if answer.status >= 400 else "application/json"
    return Response(json.dumps(answer.body), answer.status, headers, media_type=media_type)
