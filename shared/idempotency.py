"""A repeated request has one effect and one answer: the answer is kept in the transaction of the work itself.

The key's row goes in first (law 11: it is this request's inbox) and is filled last. On PostgreSQL a concurrent repeat
waits at the unique key until the first has ended, on SQLite for the writer's turn: it then finds the answer, or, when
the first was rolled back, does the work. What a request was refused with is rolled back and so not kept: a repeat is
judged anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from shared.db import Session
from shared.sql import sql
from shared.web import Problem

KEEP = timedelta(hours=24)  # how long a client may take to repeat; long beyond any retry of a lost answer
FORGET_AT_ONCE = 10  # more than one a request, so that old answers leave faster than new ones come

CLAIM = sql(
    """
    INSERT INTO idempotency (scope, key, request_hash, status, body, created_at)
    VALUES (:scope, :key, :request_hash, 0, '', clock_timestamp())
    ON CONFLICT (scope, key) DO NOTHING RETURNING created_at
    """
)
KEPT = sql("SELECT request_hash, status, body FROM idempotency WHERE scope = :scope AND key = :key")
KEEP_ANSWER = sql("UPDATE idempotency SET status = :status, body = :body WHERE scope = :scope AND key = :key")
FORGET = sql(
    """
    DELETE FROM idempotency WHERE (scope, key) IN (
        SELECT scope, key FROM idempotency WHERE created_at < :before_at ORDER BY created_at LIMIT :size {skip_locked}
    )
    """
)


class KeyReused(Problem):
    """This key already stands for another request of the same caller."""

    def __init__(self, key: str) -> None:
        super().__init__(
            422,
            "/problems/idempotency-key-reused",
            "This Idempotency-Key was used for another request",
            "Repeat a request with its own key only, and give a new request a new key.",
            key=key,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered with: the status and a JSON object. `is_repeat`: it was kept from the first time."""

    status: int
    body: dict[str, Any]
    is_repeat: bool = False


async def once(
    session: Session, *, scope: str, key: str | None, request_hash: str, work: Callable[[], Awaitable[Answer]]
) -> Answer:
    """The answer of `work`, which runs at most once per (scope, key); without a key, always.

    `scope`: whose keys these are (the caller's id). Call it first in the transaction. Raises `KeyReused`, and whatever
    `work` raises.
    """
    if key is None:
        return await work()
    claimed = await session.first(CLAIM, scope=scope, key=key, request_hash=request_hash)
    if claimed is None:
        kept = await _kept(session, scope, key, request_hash)
        return kept or await once(session, scope=scope, key=key, request_hash=request_hash, work=work)
    answer = await work()
    await session.execute(KEEP_ANSWER, scope=scope, key=key, status=answer.status, body=json.dumps(answer.body))
    await session.execute(FORGET, before_at=claimed.created_at - KEEP, size=FORGET_AT_ONCE)
    return answer


def request_hash(method: str, path: str, body: bytes) -> str:
    """What makes two requests the same one. Not `If-Match`: who repeats a lost answer may have read the row since.

    A repeat with another If-Match, even an old one, is so answered with what was kept, and not 412: the work was done
    once, under the version of the first request, and a repeat changes nothing. (One without If-Match is still 428.)
    """
    return hashlib.sha256(b"\n".join((method.encode(), path.encode(), body))).hexdigest()


async def _kept(session: Session, scope: str, key: str, request_hash: str) -> Answer | None:
    """The answer of the first time; None: it was forgotten this instant."""
    row = await session.first(KEPT, scope=scope, key=key)
    if row is None:
        return None
    if row.request_hash != request_hash:
        raise KeyReused(key)
    return Answer(row.status, json.loads(row.body), is_repeat=True)
