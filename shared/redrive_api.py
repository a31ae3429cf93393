"""The door for `baton dlq redrive` beside a running embedded server, which alone writes its data."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from shared.bus import Bus, BusError
from shared.db import Database
from shared.redrive import AT_ONCE, CAP, send_back
from shared.security import Keyring, Scope
from shared.web import RETRY_AFTER, Problem, requires

Offset = Annotated[int, Field(ge=0, lt=2**40)]


class Chosen(BaseModel):
    """Dead letters by (partition, offset), in the order in which they go back."""

    model_config = ConfigDict(extra="forbid")
    places: Annotated[list[tuple[Offset, Offset]], Field(max_length=AT_ONCE)]
    cap: Annotated[int, Field(ge=1)] = CAP


def redrive_routes(database: Database, bus: Bus, keyring: Keyring) -> APIRouter:
    """`POST /v1/dead-letters/{service}/redrive`, for administrators. What went back before does not go again."""
    service = database.service
    router = APIRouter(tags=["dead letters"], dependencies=[Depends(requires(keyring, Scope.ADMIN))])

    @router.post(f"/v1/dead-letters/{service}/redrive", operation_id=f"redrive_{service}")
    async def redrive(chosen: Chosen) -> dict[str, int]:
        try:
            return {"redriven": await send_back(database, bus, chosen.places, cap=chosen.cap)}
        except BusError as error:
            raise Problem(503, "/problems/unavailable", "Unavailable", str(error), RETRY_AFTER) from error

    return router
