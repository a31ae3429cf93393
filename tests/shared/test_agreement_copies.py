"""A service's own copy of the published agreements (shared/agreement_copies.py)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared.agreement import Agreement, parse, sha256
from shared.agreement_copies import Copy, VersionConflict, in_force, keep_agreements, keep_published, versions
from shared.bus import Record
from shared.db import Database
from shared.envelope import Received
from shared.events import AgreementPublished, Event, LeadErased
from shared.outcomes import Reject
from tests.support import Databases

ACME = (Path(__file__).resolve().parents[2] / "deploy/agreements/acme.yaml").read_text()
JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def database(databases: Databases) -> Database:
    return databases.open("scoring")


def content_of(version: int) -> str:
    return f"# version {version}\n{ACME}"


def published(version: int, *, effective_from: datetime = JANUARY, content: str | None = None) -> AgreementPublished:
    content = content or content_of(version)
    return AgreementPublished(
        agreement="acme",
        version=version,
        sha256=sha256(content),
        content=content,
        signatures=[],
        published_at=JANUARY,
        effective_from=effective_from,
    )


def received(event: Event) -> Received[Event]:
    record = Record(event.topic, 0, 0, JANUARY, event.key.encode(), b"", ())
    return Received(event, "id", "/baton/handoff", JANUARY, "00-0-0-00", record)


async def keep(database: Database, *events: Event) -> None:
    records = [received(event) for event in events]
    await database.run(lambda session: keep_agreements(records, session=session, now=JANUARY))


async def at(database: Database, instant: datetime) -> Copy | None:
    return await database.read(lambda session: in_force(session, instant))


async def known(database: Database, *numbers: int) -> dict[int, Agreement]:
    return await database.read(lambda session: versions(session, numbers))


async def test_the_greatest_version_that_has_begun_is_in_force(database: Database) -> None:
    await keep(database, published(1), published(2, effective_from=JANUARY + 2 * DAY))
    await keep(database, published(3, effective_from=JANUARY + DAY))
    assert await at(database, JANUARY - DAY) is None
    found = [await at(database, JANUARY + number * DAY) for number in range(4)]
    assert [copy and copy.version for copy in found] == [1, 3, 3, 3]
    first = found[0]
    assert first == Copy(1, sha256(content_of(1)), parse(content_of(1)), JANUARY, JANUARY)


async def test_without_a_publication_nothing_is_in_force(database: Database) -> None:
    assert await at(database, JANUARY) is None
    assert await known(database, 1) == {}
    assert await known(database) == {}


async def test_a_version_ends_at_its_own_end(database: Database) -> None:
    content = f"effective_to: 2026-01-03T00:00:00Z\n{ACME}"
    await keep(database, published(1, content=content))
    copy = await at(database, JANUARY + 2 * DAY - timedelta(microseconds=1))
    assert copy is not None
    assert copy.version == 1
    assert await at(database, JANUARY + 2 * DAY) is None


async def test_a_version_that_comes_twice_stays_as_it_was(database: Database) -> None:
    await keep(database, published(1), published(1))
    await keep(database, published(1, effective_from=JANUARY + DAY))
    copy = await at(database, JANUARY)
    assert copy is not None
    assert copy.effective_from == JANUARY


async def test_versions_are_read_by_their_numbers(database: Database) -> None:
    await keep(database, published(1), published(2), published(3))
    assert await known(database, 3, 1, 3, 99) == {1: parse(content_of(1)), 3: parse(content_of(3))}


async def test_another_content_for_a_version_is_a_conflict(database: Database) -> None:
    await keep(database, published(1))
    other = published(1, content=content_of(2))
    with pytest.raises(VersionConflict, match="version 1 is kept with SHA-256"):
        await database.run(lambda session: keep_published([other], session=session))


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (published(1, content="agreement: acme"), "cannot be read"),
        (
            AgreementPublished(
                agreement="acme",
                version=1,
                sha256="0" * 64,
                content=ACME,
                signatures=[],
                published_at=JANUARY,
                effective_from=JANUARY,
            ),
            "not the one that was signed",
        ),
        (LeadErased(lead_id="lead_1", erased_at=JANUARY), "nothing about agreements"),
    ],
    ids=["invalid", "other content", "other event"],
)
async def test_what_cannot_be_an_agreement_is_rejected_by_its_record(
    database: Database, event: Event, reason: str
) -> None:
    with pytest.raises(Reject, match=reason):
        await keep(database, event)
    assert await at(database, JANUARY) is None
