"""What the services have stored, read beside them: nothing here writes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from shared.db import Database, DatabaseError
from shared.nearest import did_you_mean
from shared.service import UnknownName, service_names
from shared.settings import Settings


class NothingStored(DatabaseError):
    """There is nothing to read under these settings."""


def known_service(name: str) -> str:
    """This name, if there is such a service. Raises `UnknownName`."""
    known = service_names()
    if name not in known:
        raise UnknownName(f"unknown service {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}")
    return name


@asynccontextmanager
async def stored(settings: Settings, services: Sequence[str]) -> AsyncIterator[dict[str, Database]]:
    """These services' databases, to read: a server may be writing them. Raises `NothingStored`, `UnknownName`."""
    for name in map(known_service, services):
        if settings.profile == "embedded" and not (settings.data_directory / f"{name}.sqlite").exists():
            raise NothingStored(f"{settings.data_directory}: {name} has no database; start one: baton up")
    databases = {name: Database(settings.database_url_for(name), service=name, read_only=True) for name in services}
    try:
        yield databases
    finally:
        for database in databases.values():
            await database.close()
