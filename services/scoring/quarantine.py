"""What could not be used, and records whose identities lead to two people: for somebody to look at.

GET /v1/quarantine          authentic items that were taken and cannot be used, with the reason, oldest first
GET /v1/identity-conflicts  records that went to one of two leads that could not be joined
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Depends, Query
from sqlalchemy.engine import Row

from services.scoring.store import quarantine as store
from shared.db import Database, Session
from shared.security import Keyring, Scope
from shared.web import decode_cursor, page, requires

PAGE = 100

Read = Callable[[Session, tuple[datetime, str], int], Awaitable[Sequence[Row[Any]]]]


def quarantine_routes(database: Database, keyring: Keyring) -> APIRouter:
    """The routes, for callers that may read leads: items hold what senders said about people."""
    router = APIRouter(dependencies=[Depends(requires(keyring, Scope.LEADS_READ))])

    @router.get("/v1/quarantine")
    async def quarantine(cursor: str | None = None, limit: int = Query(PAGE, ge=1, le=1000)) -> dict[str, Any]:
        return await _page(database, store.quarantined, _quarantined, cursor, limit)

    @router.get("/v1/identity-conflicts")
    async def conflicts(cursor: str | None = None, limit: int = Query(PAGE, ge=1, le=1000)) -> dict[str, Any]:
        return await _page(database, store.conflicts, _conflict, cursor, limit)

    return router


async def _page(
    database: Database, read: Read, show: Callable[[Row[Any]], dict[str, Any]], cursor: str | None, limit: int
) -> dict[str, Any]:
    after = decode_cursor(cursor, datetime, str) if cursor else store.START
    rows = await database.read(lambda session: read(session, (after[0], after[1]), limit + 1))
    return page(rows, limit, show, lambda row: (row.received_at, row.id))


def _quarantined(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        "source": row.source,
        "source_id": row.source_id,
        "reason": row.reason,
        "item": bytes(row.item).decode("utf-8", "replace"),
        "delivery_id": row.delivery_id,
        "received_at": row.received_at,
    }


def _conflict(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        "source": row.source,
        "source_id": row.source_id,
        "lead_id": row.lead_id,
        "other_lead_id": row.other_lead_id,
        "kind": row.kind,
        "received_at": row.received_at,
    }
