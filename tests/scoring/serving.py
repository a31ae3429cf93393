"""The door over HTTP, as the service mounts it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
from fastapi import FastAPI
from pydantic import SecretStr

from services.scoring.door import Door
from services.scoring.intake import BODY_LIMITS, Senders, intake_routes
from services.scoring.quarantine import quarantine_routes
from shared.db import Database
from shared.middleware import BoundedBody
from shared.security import Keyring, new_key
from shared.web import add_problem_handlers

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
PUBLIC_URL = "https://baton.acme.example"
WRITE_KEY = "a-write-key-of-segment"
HUBSPOT_SECRET = "a-client-secret-of-hubspot"


@dataclass(frozen=True, slots=True)
class Intake:
    app: FastAPI
    client: httpx.AsyncClient
    key: str

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


@asynccontextmanager
async def serving(database: Database) -> AsyncIterator[Intake]:
    """The routes of the door over this database, with a client that trusts nothing but HTTP."""
    door = Door(database)
    key, entry = new_key(["activities:write", "leads:read"], name="test")
    keyring = Keyring([entry])
    senders = Senders(PUBLIC_URL, {"site": SecretStr(WRITE_KEY)}, {"hubspot": SecretStr(HUBSPOT_SECRET)})
    app = FastAPI()
    add_problem_handlers(app)
    app.add_middleware(BoundedBody, limit=4 * 1024 * 1024, limits=BODY_LIMITS)
    app.include_router(intake_routes(door, keyring, senders, clock=lambda: NOW))
    app.include_router(quarantine_routes(database, keyring))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://door") as client:
        yield Intake(app, client, key)
    await door.close()
