"""The inbox: what each sender's items were when they came first, so that a repetition is recognised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from shared.db import Session
from shared.sql import sql

Key = tuple[str, str]  # (source, source id)

PUT_INBOX = sql(
    """
    INSERT INTO inbox (source, source_id, digest, delivery_id, received_at)
    SELECT source, source_id, digest, delivery_id, :received_at FROM {rows} WHERE true ORDER BY row_number
    ON CONFLICT (source, source_id) DO NOTHING
    RETURNING source, source_id
    """,
    source="text",
    source_id="text",
    digest="text",
    delivery_id="text",
)

RECEIVED_SINCE = sql(
    """
    SELECT inbox.source, inbox.source_id
    FROM {rows} JOIN inbox ON inbox.source = rows.of_source AND inbox.source_id = rows.of_id
    WHERE inbox.received_at >= :since
    """,
    of_source="text",
    of_id="text",
)

DIGESTS = sql(
    """
    SELECT inbox.source, inbox.source_id, inbox.digest
    FROM {rows} JOIN inbox ON inbox.source = rows.source AND inbox.source_id = rows.source_id
    """,
    source="text",
    source_id="text",
)


async def put_inbox(
    session: Session, items: Mapping[Key, tuple[str, str]], *, received_at: datetime
) -> tuple[set[Key], dict[Key, str]]:
    """Keep the (digest, delivery id) of each item; which of them are new, and the kept digests of the others."""
    rows = [(*key, *items[key]) for key in sorted(items)]
    new = {(row.source, row.source_id) for row in await session.execute(PUT_INBOX, rows, received_at=received_at)}
    known = [key for key in items if key not in new]
    found = await session.execute(DIGESTS, known) if known else []
    return new, {(row.source, row.source_id): row.digest for row in found}


async def received_since(session: Session, keys: Iterable[Key], since: datetime) -> set[Key]:
    """Those of these items that are known, and were received since."""
    rows = await session.execute(RECEIVED_SINCE, sorted(keys), since=since)
    return {(row.source, row.source_id) for row in rows}
