"""What the tests of handoff share: the sample agreement, and what its outbox holds."""

from __future__ import annotations

from pathlib import Path

from shared.bus import Record
from shared.db import Database
from shared.events import Event, decode
from shared.outbox import unpack_headers
from shared.sql import sql

ACME = (Path(__file__).resolve().parents[2] / "deploy/agreements/acme.yaml").read_text()

OUTBOX = sql("SELECT topic, key, value, headers, created_at FROM outbox ORDER BY id")


async def emitted(database: Database) -> list[Event]:
    """Every event in the outbox, in order, as a reader would decode it."""
    rows = await database.read(lambda session: session.execute(OUTBOX))
    return [
        decode(
            Record(row.topic, 0, offset, row.created_at, bytes(row.key), bytes(row.value), unpack_headers(row.headers))
        ).event
        for offset, row in enumerate(rows)
    ]
