"""What was told to whom, over HTTP: `GET /v1/deliveries`, newest first, and which channels there are."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from sqlalchemy.engine import Row

from services.notifier.compose import Channel
from services.notifier.store import deliveries as store
from shared.db import Database
from shared.security import Keyring
from shared.web import decode_cursor, page, requires

LIMIT = 50
MAX_LIMIT = 500
LAST = 2**63 - 1

State = Literal["pending", "delivered", "dead", "stale"]


def routes(database: Database, keyring: Keyring, channels: Collection[Channel]) -> APIRouter:
    """The notifier's part of the API."""
    router = APIRouter(prefix="/v1", tags=["deliveries"], dependencies=[Depends(requires(keyring, "deliveries:read"))])

    @router.get("/deliveries")
    async def deliveries(
        lead: str | None = None,
        state: State | None = None,
        cursor: str | None = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = LIMIT,
    ) -> dict[str, Any]:
        """Deliveries, newest first. `dead` are those that somebody must look at."""
        before = int(decode_cursor(cursor, int)[0]) if cursor else LAST
        rows = await database.read(partial(store.page, before_seq=before, size=limit + 1, state=state, lead=lead))
        return page(rows, limit, _item, lambda row: (row.seq,))

    @router.get("/channels")
    async def configured() -> dict[str, Any]:
        """Which channels this deployment can use; a receiver that none of them reaches has a `dead` delivery."""
        items = [{"channel": channel.value, "configured": channel in channels} for channel in Channel]
        return {"items": items, "next": None}

    return router


def _item(row: Row[Any]) -> dict[str, Any]:
    names = ("event_id", "event_type", "receiver", "channel", "state", "attempts", "next_attempt_at", "delivered_at")
    more = ("last_error", "lead_id", "handoff_id", "created_at")
    return {"id": row.delivery_id, **{name: getattr(row, name) for name in (*names, *more)}}
