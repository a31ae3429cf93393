"""What the tests of the door share: sending items in, and reading what came of them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Row

from services.scoring.arrivals import Activity, Arrival, Delivery, Verdict
from services.scoring.door import Door
from services.scoring.sources import rest
from shared.bus import Record
from shared.clock import system_clock
from shared.db import Database, Session
from shared.envelope import decode
from shared.events import Event, IdentityMerged
from shared.outbox import unpack_headers
from shared.sql import sql
from tests.support import ROOT, missing

OUTBOX = sql("SELECT topic, key, value, headers FROM outbox ORDER BY id")


def delivery(*items: dict[str, Any], source: str = "api:test") -> Delivery:
    return Delivery(source, json.dumps(items).encode(), rest.arrivals(list(items)))


async def send(door: Door, *items: dict[str, Any], source: str = "api:test") -> list[Verdict]:
    return await door.submit(delivery(*items, source=source))


def page(**identities: object) -> dict[str, Any]:
    """A page view of whoever has these ids."""
    return {"kind": "page_viewed", "identities": identities}


async def rows(database: Database, statement: str) -> Sequence[Row[Any]]:
    async def work(session: Session) -> Sequence[Row[Any]]:
        return await session.execute(sql(statement))

    return await database.read(work)


async def told(database: Database) -> list[Event]:
    """The events in the outbox, in order."""

    async def work(session: Session) -> Sequence[Row[Any]]:
        return await session.execute(OUTBOX)

    return [decode(_record(row)).event for row in await database.read(work)]


async def roots(database: Database) -> dict[str, str]:
    """Each absorbed lead's root, as the scorer finds it: strong evidence joins, weak joins a provisional lead once."""
    parents: dict[str, str] = {}

    def root(lead: str) -> str:
        while lead in parents:
            lead = parents[lead]
        return lead

    for event in await told(database):
        if not isinstance(event, IdentityMerged):
            continue
        one, other = root(event.absorbed_id), root(event.survivor_id)
        is_late = event.evidence == "weak" and event.absorbed_id in parents
        if one != other and not is_late:
            parents[one] = other
    return {lead: root(lead) for lead in parents}


def _record(row: Row[Any]) -> Record:
    return Record(
        topic=row.topic,
        partition=0,
        offset=0,
        timestamp=system_clock(),
        key=bytes(row.key),
        value=bytes(row.value),
        headers=unpack_headers(row.headers),
    )


def outside_data(name: str) -> Any:
    folder = Path(os.environ.get("BATON_OUTSIDE_DATA", ROOT.parent / "shared" / "data"))
    path = folder / "webhooks" / name
    if not path.exists():
        missing(f"{path} is not there: real payloads of other projects, named by BATON_OUTSIDE_DATA")
    return json.loads(path.read_text())


def call_of(payload: dict[str, Any]) -> str:
    """Where the payload would be posted to: not all of them say it."""
    said = "batch" if "batch" in payload else payload.get("type", payload.get("action"))
    signs = {"event": "track", "previousId": "alias", "groupId": "group", "traits": "identify"}
    return said or next((call for sign, call in signs.items() if sign in payload), "page")


def activity(arrival: Arrival) -> Activity:
    assert isinstance(arrival.what, Activity)
    return arrival.what
