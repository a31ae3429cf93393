"""The statements of `agreement.py`: drafts and their signatures; a published draft names its version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.engine import Row

from shared.db import Session
from shared.events import Signature
from shared.sql import sql

COLUMNS = """
    drafts.sha256, drafts.agreement, drafts.content, drafts.created_by, drafts.created_at, drafts.version,
    drafts.published_at, agreements.effective_from_at
    FROM agreement_drafts AS drafts LEFT JOIN agreements ON agreements.version = drafts.version
"""
NEWEST = (datetime(9999, 12, 31, tzinfo=UTC), "")  # where a list that runs from the newest begins

INSERT = sql(
    """
    INSERT INTO agreement_drafts (sha256, agreement, content, created_by, created_at)
    VALUES (:sha256, :agreement, :content, :created_by, :created_at) ON CONFLICT (sha256) DO NOTHING RETURNING sha256
    """
)
LOCK_ALL = sql("SELECT sha256 FROM agreement_drafts ORDER BY sha256 {for_update}")
FIND = sql(f"SELECT {COLUMNS} WHERE drafts.sha256 = :sha256")
PAGE = sql(
    f"""
    SELECT {COLUMNS} WHERE (drafts.created_at, drafts.sha256) < (:before_at, :before_sha256)
    ORDER BY drafts.created_at DESC, drafts.sha256 DESC LIMIT :size
    """
)
SIGNATURES = sql(
    """
    SELECT signatures.sha256, party, signed_by, signed_at FROM agreement_signatures AS signatures
    JOIN {rows} ON signatures.sha256 = rows.wanted ORDER BY signatures.sha256, party
    """,
    wanted="text",
)
SIGN = sql(
    """
    INSERT INTO agreement_signatures (sha256, party, signed_by, signed_at)
    VALUES (:sha256, :party, :signed_by, :signed_at) ON CONFLICT (sha256, party) DO NOTHING
    """
)
NEWEST_VERSION = sql("SELECT version, agreement FROM agreements ORDER BY version DESC LIMIT 1")
PUBLISH = sql("UPDATE agreement_drafts SET version = :version, published_at = :published_at WHERE sha256 = :sha256")


@dataclass(frozen=True, slots=True)
class Draft:
    """One exact content of the agreement, known by the SHA-256 of its UTF-8 bytes; a version once it is published."""

    sha256: str
    agreement: str
    content: str
    created_by: str
    created_at: datetime
    version: int | None
    published_at: datetime | None
    effective_from: datetime | None
    signatures: tuple[Signature, ...]

    def signature(self, party: str) -> Signature | None:
        return next((signature for signature in self.signatures if signature.party == party), None)


async def insert(
    session: Session, *, sha256: str, agreement: str, content: str, created_by: str, now: datetime
) -> bool:
    """Keep a draft; False: the very same content was there already."""
    row = await session.first(
        INSERT, sha256=sha256, agreement=agreement, content=content, created_by=created_by, created_at=now
    )
    return row is not None


async def find(session: Session, sha256: str) -> Draft | None:
    row = await session.first(FIND, sha256=sha256)
    return (await _with_signatures(session, [row]))[0] if row else None


async def lock_publication(session: Session) -> None:
    """Let one publication run at a time: it holds every draft, and of two drafts the older is seen by both."""
    await session.execute(LOCK_ALL)


async def page(session: Session, *, before: tuple[datetime, str], size: int) -> list[Draft]:
    """The next drafts, from the newest."""
    before_at, before_sha256 = before
    rows = await session.execute(PAGE, before_at=before_at, before_sha256=before_sha256, size=size)
    return await _with_signatures(session, rows)


async def sign(session: Session, signature: Signature) -> None:
    """Keep a party's signature; its first one stands."""
    await session.execute(
        SIGN,
        sha256=signature.sha256,
        party=signature.party,
        signed_by=signature.signed_by,
        signed_at=signature.signed_at,
    )


async def newest_version(session: Session) -> tuple[int, str] | None:
    """Number and name of the newest published version."""
    row = await session.first(NEWEST_VERSION)
    return (row.version, row.agreement) if row else None


async def publish(session: Session, sha256: str, *, version: int, now: datetime) -> None:
    await session.execute(PUBLISH, sha256=sha256, version=version, published_at=now)


async def _with_signatures(session: Session, rows: Sequence[Row[tuple[object, ...]]]) -> list[Draft]:
    signatures: dict[str, list[Signature]] = {row.sha256: [] for row in rows}
    for row in await session.execute(SIGNATURES, rows=[(sha256,) for sha256 in signatures]):
        signatures[row.sha256].append(
            Signature(party=row.party, signed_by=row.signed_by, sha256=row.sha256, signed_at=row.signed_at)
        )
    return [
        Draft(
            sha256=row.sha256,
            agreement=row.agreement,
            content=row.content,
            created_by=row.created_by,
            created_at=row.created_at,
            version=row.version,
            published_at=row.published_at,
            effective_from=row.effective_from_at,
            signatures=tuple(signatures[row.sha256]),
        )
        for row in rows
    ]
