"""Who gets a lead: reps, pools, and the rules that choose among them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from shared.agreement.flaws import Fault, refuse, shown
from shared.agreement.parts import Choice, Email, Name, Part, Slug, Some, pairs, postponed

Strategy = Annotated[
    Literal["fair_share"],
    BeforeValidator(postponed("strategy", "round_robin", "least_open", "by_skill", "owner_first", "preferred")),
]


class Rep(Part):
    """A person of sales. `crm_ids`: (namespace, id) pairs."""

    later: ClassVar = frozenset({"calendar", "caps", "languages", "leaves", "shift", "skills"})
    id: Slug
    name: Name
    email: Email
    manager: Email | None = None
    crm_ids: Annotated[tuple[tuple[Slug, Name], ...], BeforeValidator(pairs)] = ()
    slack: Name | None = None
    active: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """All that a sender may call the rep, in lower case."""
        return tuple(name.casefold() for name in (self.id, self.email, *(crm_id for _, crm_id in self.crm_ids)))


class Member(Part):
    """A rep in a pool; leads are shared in proportion to the weights."""

    later: ClassVar = frozenset({"cap", "caps", "from", "until"})
    rep: str
    weight: int = Field(default=1, ge=1, le=1000)


def _each_once(members: tuple[Member, ...]) -> tuple[Member, ...]:
    seen: set[str] = set()
    for place, member in enumerate(members):
        if member.rep in seen:
            refuse([Fault((place, "rep"), f"{shown(member.rep)} is in the pool twice")])
        seen.add(member.rep)
    return members


class Pool(Part):
    later: ClassVar = frozenset({"breaker", "calendar", "caps", "overflow", "shadow", "strategy"})
    id: Slug
    members: Annotated[tuple[Member, ...], Some, AfterValidator(_each_once)]


class Route(Choice):
    """Which pool gets a lead. `last_resort`: who gets it when nobody of the pool can; a rep's id, or an e-mail.

    Without an `id` it is known by its place: `route-1`, and the last as `otherwise`.
    """

    later: ClassVar = frozenset({"exclude", "fallback", "owner_first", "preferred", "same_company", "shadow"})
    pool: str
    strategy: Strategy = "fair_share"
    last_resort: str | None = None
