"""From a draft to a version in force: drafted, signed by both heads, published.

A draft is its content: its id is the SHA-256 of the exact bytes, so nothing can be changed under a signature. Who may
sign stands in the content itself. What is published once stays that version for ever; to go back to an older content,
draft it anew (a changed comment is enough).
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, get_args

import msgspec

from services.handoff import agreement_store as store
from services.handoff.agreement_store import Draft
from shared.agreement import Agreement, AgreementInvalid, parse, sha256
from shared.agreement_copies import keep_published
from shared.db import Session
from shared.events import AgreementPublished, Signature
from shared.outbox import emit
from shared.topics import MAX_EVENT_BYTES
from shared.web import Problem

Party = Literal["marketing", "sales"]
PARTIES: tuple[Party, ...] = get_args(Party)

ROOM_FOR_SIGNATURES = 8 * 1024  # what `agreement.published` holds beside the content


class ContentInvalid(Problem):
    def __init__(self, invalid: AgreementInvalid) -> None:
        flaws = [flaw._asdict() for flaw in invalid.problems]
        text = "; ".join(str(flaw) for flaw in invalid.problems[:3])
        super().__init__(422, "/problems/agreement-invalid", "This is no valid agreement", text, flaws=flaws)


class ContentTooLarge(Problem):
    def __init__(self, size: int, allowed: int) -> None:
        text = f"{size} bytes as JSON, allowed {allowed}: it has to fit into one event"
        super().__init__(413, "/problems/agreement-too-large", "Agreement too large", text)


class NoSuchAgreement(Problem):
    def __init__(self) -> None:
        text = "an agreement is known by the SHA-256 of its content; GET /v1/agreements lists them"
        super().__init__(404, "/problems/no-such-agreement", "No such agreement", text)


class OtherContentSigned(Problem):
    def __init__(self, sha256: str) -> None:
        text = "the signature names another content than this one; read it again and sign what you have read"
        super().__init__(422, "/problems/other-content-signed", "Signature of another content", text, sha256=sha256)


class NotTheHead(Problem):
    def __init__(self, party: Party, head: str) -> None:
        text = f"for {party} this agreement is signed by {head}, its head in the content"
        super().__init__(422, "/problems/not-the-head", "Not this party's head", text, party=party, head=head)


class SignaturesMissing(Problem):
    def __init__(self, missing: list[Party]) -> None:
        text = f"not signed yet by {' and '.join(missing)}: POST /v1/agreements/<id>/signatures"
        super().__init__(409, "/problems/signatures-missing", "Signatures missing", text, missing=missing)


class AnotherAgreement(Problem):
    def __init__(self, name: str, known: str) -> None:
        text = f"a deployment runs one agreement, and here it is called {known!r}, not {name!r}"
        super().__init__(409, "/problems/another-agreement", "Another agreement", text, agreement=known)


class EndedAlready(Problem):
    def __init__(self, effective_to: datetime) -> None:
        text = f"its effective_to, {effective_to.isoformat()}, is over: it would never be in force"
        super().__init__(409, "/problems/agreement-ended", "Agreement ended already", text)


async def draft(session: Session, content: str, *, created_by: str) -> tuple[Draft, bool]:
    """Keep a content as a draft; with False, the very same one was there already.

    Raises `ContentInvalid`, `ContentTooLarge`.
    """
    agreement = _parsed(content)
    size, allowed = len(msgspec.json.encode(content)), MAX_EVENT_BYTES - ROOM_FOR_SIGNATURES
    if size > allowed:
        raise ContentTooLarge(size, allowed)
    digest = sha256(content)
    is_new = await store.insert(
        session,
        sha256=digest,
        agreement=agreement.agreement,
        content=content,
        created_by=created_by,
        now=await session.now(),
    )
    return await _found(session, digest), is_new


async def sign(session: Session, id: str, *, party: Party, signed_by: str, signed_sha256: str) -> Draft:
    """Add a party's signature; a second one changes nothing. `signed_sha256`: the content that the signer has read.

    Raises `NoSuchAgreement`, `OtherContentSigned`, `NotTheHead`.
    """
    found = await _found(session, id)
    if signed_sha256.lower() != id:
        raise OtherContentSigned(id)
    head = head_of(party, _parsed(found.content))
    if signed_by.casefold() != head.casefold():
        raise NotTheHead(party, head)
    if found.signature(party) is None:
        signature = Signature(party=party, signed_by=head, sha256=id, signed_at=await session.now())
        await store.sign(session, signature)
    return await _found(session, id)


async def publish(session: Session, id: str) -> Draft:
    """Make a signed draft the next version, in force from its `effective_from`, but never before now.

    A second time changes nothing. Raises `NoSuchAgreement`, `SignaturesMissing`, `AnotherAgreement`,
    `EndedAlready`.
    """
    await store.lock_publication(session)
    found = await _found(session, id)
    if found.version is not None:
        return found
    if missing := [party for party in PARTIES if found.signature(party) is None]:
        raise SignaturesMissing(missing)
    newest = await store.newest_version(session)
    if newest is not None and newest[1] != found.agreement:
        raise AnotherAgreement(found.agreement, newest[1])
    version = newest[0] + 1 if newest else 1
    event = _published(found, version=version, now=await session.now())
    await store.publish(session, id, version=version, now=event.published_at)
    await keep_published([event], session=session)
    emit(session, event, event_id=f"agreement_{id}")
    return await _found(session, id)


def head_of(party: Party, agreement: Agreement) -> str:
    """Who signs for this party."""
    return agreement.parties.marketing.head if party == "marketing" else agreement.parties.sales.head


def _published(draft: Draft, *, version: int, now: datetime) -> AgreementPublished:
    agreement = _parsed(draft.content)
    effective_from = max(agreement.effective_from or now, now)
    if agreement.effective_to is not None and agreement.effective_to <= effective_from:
        raise EndedAlready(agreement.effective_to)
    return AgreementPublished(
        agreement=draft.agreement,
        version=version,
        sha256=draft.sha256,
        content=draft.content,
        signatures=list(draft.signatures),
        published_at=now,
        effective_from=effective_from,
    )


def _parsed(content: str) -> Agreement:
    try:
        return parse(content)
    except AgreementInvalid as invalid:
        raise ContentInvalid(invalid) from invalid


async def _found(session: Session, id: str) -> Draft:
    found = await store.find(session, id)
    if found is None:
        raise NoSuchAgreement
    return found
