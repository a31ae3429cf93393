"""What the two teams mean by their words: the parties, definitions, reasons and goals."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from shared.agreement.conditions import When
from shared.agreement.durations import ExactDuration, Rhythm
from shared.agreement.flaws import Fault, not_yet, refuse, shown
from shared.agreement.parts import Email, Listed, Name, Part, Parts, Slug, Some, postponed

CrmStage = Literal["sql", "opportunity", "won", "lost"]
ReasonClass = Literal["fit", "data", "timing", "contact", "logistics"]
ReasonKind = Literal["reject", "recycle", "lost"]

LATER_CONSEQUENCES = frozenset({"block", "existing_owner", "merge"})


class Party(Part):
    later: ClassVar = frozenset({"sponsor"})
    head: Email
    champion: Email | None = None


class Parties(Part):
    marketing: Party
    sales: Party


class Persona(Part):
    id: Slug
    owner: Email
    review_every: Rhythm | None = None
    when: When


class Touch(Part):
    """What counts as a touch: of these kinds, done by the lead's owner."""

    by: Annotated[Literal["owner"], BeforeValidator(postponed("performer", "anyone", "team", "sales"))] = "owner"
    kinds: Annotated[tuple[Slug, ...], Some]


class Sql(Part):
    requires: tuple[Slug, ...] = ()
    evidence: tuple[Slug, ...] = ()


class Definitions(Part):
    later: ClassVar = frozenset(
        {"conversion_points", "disqualified", "journey", "lead_statuses", "sources", "stages", "traffic_sources"}
    )
    personas: Parts[Persona] = ()
    touch: Touch
    sql: Sql = Sql()
    crm_stages: dict[Slug, dict[Name, CrmStage]] = Field(default={})

    def __hash__(self) -> int:
        return hash((self.personas, self.touch, self.sql))


class Nurture(Part):
    """Back to marketing, on a track; woken not before `wake_after`."""

    track: Slug = Field(alias="nurture")
    wake_after: ExactDuration | None = None


def _consequence(raw: object) -> object:
    """`reroute` as None, `{nurture: track}` as it stands."""
    if raw == "reroute":
        return None
    if isinstance(raw, str):
        refuse([Fault((), not_yet("consequence", raw) if raw in LATER_CONSEQUENCES else _what_may_follow(raw))])
    if raw is None:
        refuse([Fault((), _what_may_follow(raw))])
    return raw


def _what_may_follow(raw: object) -> str:
    return f"{shown(raw)}: expected `reroute` or {{nurture: track}}"


class Reason(Part):
    """Why a lead came back, and what follows: a nurture track, or (None) another rep."""

    later: ClassVar = frozenset({"share_back", "block", "merge"})
    id: Slug
    reason_class: ReasonClass = Field(alias="class")
    nurture: Annotated[Nurture | None, BeforeValidator(_consequence)] = Field(alias="then")
    needs_note: bool = False
    needs_attempts: int = Field(default=0, ge=0, le=100)


class Reasons(Part):
    later: ClassVar = frozenset({"disqualify"})
    reject: Listed[Reason]
    recycle: Listed[Reason]
    lost: Listed[Reason]

    @model_validator(mode="after")
    def _reroutes_only_rejections(self) -> Self:
        faults = [
            Fault((kind, place, "then"), "`reroute` is for rejections, before work began; name a nurture track")
            for kind, reasons in (("recycle", self.recycle), ("lost", self.lost))
            for place, reason in enumerate(reasons)
            if reason.nurture is None
        ]
        if faults:
            refuse(faults)
        return self


class Goal(Part):
    id: Slug
    kpi: Slug
    target: float = Field(gt=0)
    per: Literal["day", "week", "month", "quarter", "year"] | None = None


class Goals(Part):
    later: ClassVar = frozenset({"joint"})
    marketing: Parts[Goal] = ()
    sales: Parts[Goal] = ()
