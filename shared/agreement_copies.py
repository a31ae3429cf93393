"""Each service's own copy of the published versions of the agreement, kept from `baton.agreements.v1`.

A version never changes once it is published, so what was parsed is kept in memory by the content's SHA-256.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from alembic import op

from shared.agreement import Agreement, AgreementInvalid, parse, sha256
from shared.db import Session
from shared.envelope import Received
from shared.events import AgreementPublished, Event
from shared.migrations import Instant
from shared.outcomes import Reject
from shared.sql import sql

KEPT_PARSED = 64  # versions: more than a year of weekly ones

KEEP = sql(
    """
    INSERT INTO agreements (version, agreement, sha256, content, published_at, effective_from_at)
    SELECT version, agreement, sha256, content, published_at, effective_from_at FROM {rows} WHERE true
    ON CONFLICT (version) DO NOTHING
    """,
    version="bigint",
    agreement="text",
    sha256="text",
    content="text",
    published_at="timestamptz",
    effective_from_at="timestamptz",
)
KEPT = sql(
    "SELECT version, sha256 FROM agreements WHERE version IN (SELECT wanted FROM {rows})",
    wanted="bigint",
)
IN_FORCE = sql(
    """
    SELECT version, sha256, published_at, effective_from_at FROM agreements
    WHERE effective_from_at <= :at ORDER BY version DESC LIMIT 1
    """
)
CONTENTS = sql(
    "SELECT sha256, content FROM agreements WHERE sha256 IN (SELECT wanted FROM {rows})",
    wanted="text",
)

_parsed: dict[str, Agreement] = {}


@dataclass(frozen=True, slots=True)
class Copy:
    """One published version. In force from `effective_from` until a later version is, or its own `effective_to`."""

    version: int
    sha256: str
    agreement: Agreement
    published_at: datetime
    effective_from: datetime


class VersionConflict(Exception):
    """Two contents claim one version: the log and this copy do not belong together."""


async def keep_agreements(records: Sequence[Received[Event]], *, session: Session, now: datetime) -> None:
    """The handler of `baton.agreements.v1`."""
    await keep_published([_usable(received) for received in records], session=session)


async def keep_published(events: Iterable[AgreementPublished], *, session: Session) -> None:
    """Store versions; one that is there already stays as it is. Raises `VersionConflict`."""
    rows = [
        (event.version, event.agreement, event.sha256, event.content, event.published_at, event.effective_from)
        for event in events
    ]
    if not rows:
        return
    await session.execute(KEEP, rows=rows)
    kept = {row.version: row.sha256 for row in await session.execute(KEPT, rows=[(row[0],) for row in rows])}
    for version, _, digest, *_ in rows:
        if kept[version] != digest:
            raise VersionConflict(f"version {version} is kept with SHA-256 {kept[version]}, and {digest} claims it too")


async def in_force(session: Session, at: datetime) -> Copy | None:
    """The version in force at an instant; None: there is none yet, or it has ended."""
    row = await session.first(IN_FORCE, at=at)
    if row is None:
        return None
    agreement = (await _agreements(session, [row.sha256]))[row.sha256]
    if agreement.effective_to is not None and agreement.effective_to <= at:
        return None
    return Copy(row.version, row.sha256, agreement, row.published_at, row.effective_from_at)


async def versions(session: Session, numbers: Iterable[int]) -> dict[int, Agreement]:
    """The agreements of these versions; unknown ones are absent."""
    wanted = sorted(set(numbers))
    if not wanted:
        return {}
    kept = await session.execute(KEPT, rows=[(number,) for number in wanted])
    found = await _agreements(session, {row.sha256 for row in kept})
    return {row.version: found[row.sha256] for row in kept}


def create_agreements_table() -> None:
    """For the first migration of each service."""
    op.create_table(
        "agreements",
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("agreement", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("published_at", Instant, nullable=False),
        sa.Column("effective_from_at", Instant, nullable=False),
    )


def drop_agreements_table() -> None:
    """The reverse of `create_agreements_table`."""
    op.drop_table("agreements")


async def _agreements(session: Session, digests: Iterable[str]) -> dict[str, Agreement]:
    """The parsed agreements of these contents, read from the database only where this process has not met them."""
    wanted = set(digests)
    if missing := sorted(wanted - _parsed.keys()):
        for row in await session.execute(CONTENTS, rows=[(digest,) for digest in missing]):
            _parsed[row.sha256] = parse(row.content)
    found = {digest: _parsed[digest] for digest in wanted}
    while len(_parsed) > KEPT_PARSED:
        del _parsed[next(iter(_parsed))]
    return found


def _usable(received: Received[Event]) -> AgreementPublished:
    event = received.event
    if not isinstance(event, AgreementPublished):
        raise Reject(received, f"{event.type} says nothing about agreements")
    if sha256(event.content) != event.sha256:
        raise Reject(received, f"version {event.version}: the content is not the one that was signed (SHA-256)")
    try:
        parse(event.content)
    except AgreementInvalid as error:
        raise Reject(received, f"version {event.version} cannot be read: {error}") from error
    return event
