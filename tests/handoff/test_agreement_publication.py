"""From a draft to a version in force (services/handoff/agreement.py)."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import datetime, timedelta

import pytest

from services.handoff import agreement
from services.handoff.agreement import (
    AnotherAgreement,
    ContentInvalid,
    EndedAlready,
    NoSuchAgreement,
    NotTheHead,
    OtherContentSigned,
    Party,
    SignaturesMissing,
)
from services.handoff.agreement_store import Draft
from shared.agreement_copies import in_force
from shared.db import Database, Session
from shared.events import AgreementPublished
from tests.handoff.support import ACME, emitted
from tests.support import Databases

HEADS: dict[Party, str] = {"marketing": "mia@acme.example", "sales": "sam@acme.example"}


@pytest.fixture
def database(databases: Databases) -> Database:
    return databases.open("handoff")


async def drafted(database: Database, content: str = ACME) -> Draft:
    draft, _ = await database.run(lambda session: agreement.draft(session, content, created_by="tests"))
    return draft


async def signed(database: Database, draft: Draft, *parties: Party) -> Draft:
    for party in parties:
        draft = await sign(database, draft.sha256, party, HEADS[party], draft.sha256)
    return draft


async def sign(database: Database, sha256: str, party: Party, signed_by: str, signed_sha256: str) -> Draft:
    return await database.run(
        lambda session: agreement.sign(session, sha256, party=party, signed_by=signed_by, signed_sha256=signed_sha256)
    )


async def publish(database: Database, draft: Draft) -> Draft:
    return await database.run(lambda session: agreement.publish(session, draft.sha256))


async def published(database: Database, content: str = ACME) -> Draft:
    return await publish(database, await signed(database, await drafted(database, content), "marketing", "sales"))


async def version_in_force(session: Session, at: datetime) -> int | None:
    copy = await in_force(session, at)
    return copy.version if copy else None


async def events(database: Database) -> list[AgreementPublished]:
    return [event for event in await emitted(database) if isinstance(event, AgreementPublished)]


async def test_a_draft_is_known_by_the_hash_of_its_exact_bytes(database: Database) -> None:
    draft = await drafted(database)
    assert draft.sha256 == hashlib.sha256(ACME.encode()).hexdigest()
    assert (draft.agreement, draft.content, draft.version) == ("acme", ACME, None)


async def test_the_same_content_twice_is_one_draft(database: Database) -> None:
    draft = await drafted(database)
    again, is_new = await database.run(lambda session: agreement.draft(session, ACME, created_by="somebody else"))
    assert (again, is_new) == (draft, False)


async def test_an_invalid_content_is_refused_with_every_flaw_and_its_place(database: Database) -> None:
    broken = ACME.replace("timezone: America/New_York", "timezoen: America/New_York", 1)
    with pytest.raises(ContentInvalid) as refused:
        await drafted(database, broken)
    flaws = refused.value.body["flaws"]
    assert isinstance(flaws, list)
    assert [(flaw["line"], flaw["path"]) for flaw in flaws] == [(4, ""), (6, "timezoen")]


async def test_without_both_signatures_nothing_is_published(database: Database) -> None:
    draft = await drafted(database)
    with pytest.raises(SignaturesMissing) as refused:
        await publish(database, draft)
    assert refused.value.body["missing"] == ["marketing", "sales"]
    await signed(database, draft, "marketing")
    with pytest.raises(SignaturesMissing) as refused:
        await publish(database, draft)
    assert refused.value.body["missing"] == ["sales"]
    assert await events(database) == []


async def test_only_the_head_named_in_the_content_signs_for_a_party(database: Database) -> None:
    draft = await drafted(database)
    with pytest.raises(NotTheHead) as refused:
        await sign(database, draft.sha256, "sales", HEADS["marketing"], draft.sha256)
    assert refused.value.body["head"] == HEADS["sales"]


async def test_a_signature_of_another_content_is_refused(database: Database) -> None:
    draft = await drafted(database)
    read = await drafted(database, ACME + "# another\n")
    with pytest.raises(OtherContentSigned):
        await sign(database, draft.sha256, "sales", HEADS["sales"], read.sha256)


async def test_a_signature_names_who_when_and_which_content_and_stays(database: Database) -> None:
    draft = await signed(database, await drafted(database), "sales")
    (signature,) = draft.signatures
    assert (signature.party, signature.signed_by, signature.sha256) == ("sales", HEADS["sales"], draft.sha256)
    assert signature.signed_at >= draft.created_at
    assert (await signed(database, draft, "sales")).signatures == (signature,)


async def test_what_nobody_drafted_can_be_neither_signed_nor_published(database: Database) -> None:
    with pytest.raises(NoSuchAgreement):
        await sign(database, "0" * 64, "sales", HEADS["sales"], "0" * 64)
    with pytest.raises(NoSuchAgreement):
        await database.run(lambda session: agreement.publish(session, "0" * 64))


async def test_a_publication_is_the_next_version_kept_here_and_told_to_all(database: Database) -> None:
    first = await published(database)
    second = await published(database, ACME + "# second thoughts\n")
    assert (first.version, second.version) == (1, 2)
    told = await events(database)
    assert [(event.version, event.sha256, event.content) for event in told] == [
        (1, first.sha256, first.content),
        (2, second.sha256, second.content),
    ]
    assert [signature.party for signature in told[1].signatures] == ["marketing", "sales"]
    assert second.published_at is not None
    at = second.published_at
    assert await database.read(lambda session: version_in_force(session, at)) == 2
    assert await database.read(lambda session: version_in_force(session, at - timedelta(days=1))) is None


async def test_publishing_twice_changes_nothing(database: Database) -> None:
    first = await published(database)
    await published(database, ACME + "# second thoughts\n")
    assert await publish(database, first) == first
    assert [event.version for event in await events(database)] == [1, 2]


async def test_an_agreement_is_not_in_force_before_its_publication(database: Database) -> None:
    draft = await published(database, ACME + "effective_from: 2020-01-01T00:00:00Z\n")
    assert draft.effective_from == draft.published_at


async def test_an_agreement_may_wait_for_its_day(database: Database) -> None:
    draft = await published(database, ACME + "effective_from: 2199-01-01T00:00:00Z\n")
    assert draft.effective_from is not None
    assert draft.effective_from.year == 2199
    assert draft.published_at is not None
    at = draft.published_at
    assert await database.read(lambda session: version_in_force(session, at)) is None


async def test_an_agreement_that_ended_already_is_not_published(database: Database) -> None:
    with pytest.raises(EndedAlready):
        await published(database, ACME + "effective_to: 2020-01-01T00:00:00Z\n")


async def test_a_deployment_runs_one_agreement(database: Database) -> None:
    await published(database)
    with pytest.raises(AnotherAgreement):
        await published(database, ACME.replace("agreement: acme", "agreement: umbrella", 1))


async def test_publications_at_once_get_consecutive_versions(database: Database) -> None:
    drafts = [
        await signed(database, await drafted(database, f"{ACME}# {place}\n"), "marketing", "sales")
        for place in range(6)
    ]
    both = await asyncio.gather(*(publish(database, draft) for draft in drafts + drafts))
    assert sorted(draft.version or 0 for draft in both) == sorted([*range(1, 7)] * 2)
    assert sorted(event.version for event in await events(database)) == [*range(1, 7)]
