"""From the ids that a sender gives to a claim: those that identify somebody, in order of precedence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from services.scoring.identity import (
    ANONYMOUS_ID,
    EMAIL,
    KNOWN,
    LEAD_ID,
    PROVISIONAL,
    USER_ID,
    Identity,
    IdentityRefused,
    crm_kind,
    identity,
    is_provisional,
)
from services.scoring.resolve import Claim


class Nobody(ValueError):
    """No id that was given identifies anybody; says why for each."""


@dataclass(frozen=True, slots=True)
class Given:
    """Ids as a sender gives them, None where it gives none. `same_as`: further user ids, by an alias."""

    user_id: object = None
    email: object = None
    anonymous_id: object = None
    crm: Mapping[str, object] = field(default_factory=dict)
    lead_id: str | None = None
    same_as: object = None


def claim(given: Given) -> Claim:
    """The claim of a record. An id that identifies nobody is left out; raises `Nobody` if none is left."""
    refusals: list[str] = []
    strong = [found for kind, value in _strong(given) if (found := _identity(kind, value, refusals))]
    weak = [found for value in _one(given.anonymous_id) if (found := _identity(ANONYMOUS_ID, value, refusals))]
    if given.lead_id is not None:
        named = _lead(given.lead_id)
        (weak if is_provisional(named.value) else strong).insert(0, named)
    if not strong and not weak:
        raise Nobody(f"no usable identity: {'; '.join(refusals) or 'none given'}")
    return Claim(strong=tuple(dict.fromkeys(strong)), weak=tuple(weak))


def alias(given: Given) -> Claim:
    """The claim of an alias: `same_as` is the same person as `user_id`, in so many words.

    What was `same_as` so far may have been a user id or an anonymous id; as the latter it is weak evidence, as ever.
    """
    try:
        user, former = identity(USER_ID, given.user_id), identity(USER_ID, given.same_as)
    except IdentityRefused as error:
        raise Nobody(f"an alias needs a user id and a previous id: {error}") from error
    weak = [found for value in _one(given.anonymous_id) if (found := _identity(ANONYMOUS_ID, value, []))]
    return Claim((user, former), tuple(weak), (Identity(ANONYMOUS_ID, former.value),), explicit=True)


def merged(namespace: str, ids: Iterable[object]) -> Claim:
    """The claim of a merge in a CRM: its ids of one person, the surviving one first."""
    try:
        strong = tuple(dict.fromkeys(identity(crm_kind(namespace), value) for value in ids))
    except IdentityRefused as error:
        raise Nobody(str(error)) from error
    if len(strong) < 2:
        raise Nobody("a merge needs at least two ids")
    return Claim(strong, explicit=True)


def with_mailbox(contact: dict[str, str]) -> dict[str, str]:
    """Contact details whose e-mail address, if any, is one that reaches somebody, in its normal form."""
    if "email" not in contact or contact["email"] == "":
        return contact
    try:
        return {**contact, "email": identity(EMAIL, contact["email"]).value}
    except IdentityRefused:
        return {name: value for name, value in contact.items() if name != "email"}


def _strong(given: Given) -> Iterable[tuple[str, object]]:
    yield from ((USER_ID, value) for value in _one(given.user_id))
    for namespace, value in sorted(given.crm.items()):
        yield from ((f"crm:{namespace}", item) for item in _one(value))
    yield from ((EMAIL, value) for value in _one(given.email))


def _one(value: object) -> Iterable[object]:
    return () if value is None else (value,)


def _identity(kind: str, value: object, refusals: list[str]) -> Identity | None:
    try:
        return identity(crm_kind(kind[4:]) if kind.startswith("crm:") else kind, value)
    except IdentityRefused as error:
        refusals.append(str(error))
        return None


def _lead(value: str) -> Identity:
    if not value.startswith((KNOWN, PROVISIONAL)) or len(value) > 64 or not value.isascii() or not value.isprintable():
        raise Nobody(f"lead_id is not a lead's id: those start with {KNOWN} or {PROVISIONAL}")
    return Identity(LEAD_ID, value)
