"""What people and programs ask about leads. Any id a lead ever had is answered with the lead it is now."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel
from sqlalchemy.engine import Row

from services.scoring.identity import is_provisional
from services.scoring.score import Fact, Tally, earn, explain, values
from services.scoring.scorecard import Card, cards_of, day_of
from services.scoring.store import reading
from shared.agreement_copies import versions
from shared.db import Database, Session
from shared.events import ExplanationLine, Scalar
from shared.security import Keyring
from shared.web import Problem, decode_cursor, encode_cursor, requires

Stage = Literal["subscriber", "lead", "mql"]

MOST_A_PAGE = 200

_dimensions = msgspec.json.Decoder(dict[str, int])
_facts = msgspec.json.Decoder(dict[str, Fact])
_tally = msgspec.json.Decoder(Tally)


class Score(BaseModel):
    """A score as it was last displayed; `as_of`: the latest activity that is in it."""

    scorecard: str
    product: str
    motion: str
    score: float
    dimensions: dict[str, float]
    bucket: str
    cycle: int
    version: int
    agreement_version: int
    as_of: datetime


class Qualified(BaseModel):
    mql_id: str
    cycle: int
    product: str
    motion: str
    qualified_at: datetime
    clause: str
    ended_at: datetime | None


class Summary(BaseModel):
    """A lead in a list. `stage`: how far marketing brought it; what sales does is asked of handoff."""

    id: str
    stage: Stage
    scores: list[Score]


class Page(BaseModel):
    items: list[Summary]
    next: str | None


class Name(BaseModel):
    kind: str
    value: str


class Lead(Summary):
    merged_from: list[str]
    identities: list[Name]
    contact: dict[str, str]
    attributes: dict[str, Scalar]
    mqls: list[Qualified]


class Line(BaseModel):
    """See `shared.events.ExplanationLine`."""

    kind: str
    dimension: str
    group: str | None
    rule: str | None
    count: int
    points: float


class Explained(Score):
    """A score with the lines that sum to it."""

    lines: list[Line]


class Explanation(BaseModel):
    lead_id: str
    scores: list[Explained]


def routes(database: Database, keyring: Keyring) -> APIRouter:
    """The questions of this service."""
    router = APIRouter(tags=["leads"], dependencies=[Depends(requires(keyring, "leads:read"))])

    @router.get("/v1/leads")
    async def list_leads(
        bucket: str | None = None,
        cursor: str | None = None,
        limit: Annotated[int, Query(ge=1, le=MOST_A_PAGE)] = 50,
    ) -> Page:
        """Leads in the order of their ids, of one bucket or all."""
        (after,) = decode_cursor(cursor, str) if cursor else ("",)
        return await database.read(partial(_page, after=after, limit=limit, bucket=bucket))

    @router.get("/v1/leads/{lead_id}")
    async def get_lead(lead_id: str) -> Lead:
        """All that scoring knows of a lead."""
        return await database.read(partial(_lead, lead_id=lead_id))

    @router.get("/v1/leads/{lead_id}/explanation")
    async def explain_lead(lead_id: str) -> Explanation:
        """Why each score is what it is: the lines of a dimension sum to it exactly."""
        return await database.read(partial(_explanation, lead_id=lead_id))

    return router


async def _page(session: Session, *, after: str, limit: int, bucket: str | None) -> Page:
    ids = await reading.page(session, after=after, limit=limit + 1, bucket=bucket)
    shown = ids[:limit]
    scores = await reading.scores(session, shown) if shown else []
    mqls = await reading.mqls(session, shown) if shown else []
    items = [
        Summary(
            id=lead_id,
            stage=_stage(lead_id, [row for row in mqls if row.lead_id == lead_id]),
            scores=[_score(row) for row in scores if row.lead_id == lead_id],
        )
        for lead_id in shown
    ]
    return Page(items=items, next=encode_cursor(shown[-1]) if len(ids) > limit else None)


async def _lead(session: Session, *, lead_id: str) -> Lead:
    row = await _found(session, lead_id)
    root: str = row.lead_id
    mqls = await reading.mqls(session, [root])
    return Lead(
        id=root,
        stage=_stage(root, mqls),
        scores=[_score(score) for score in await reading.scores(session, [root])],
        merged_from=await reading.absorbed(session, root),
        identities=[Name(kind=name.kind, value=name.value) for name in await reading.identities(session, root)],
        contact=(await reading.contacts(session, [root]))[root],
        attributes=values(_facts.decode(row.facts)),
        mqls=[_qualified(mql) for mql in mqls],
    )


async def _explanation(session: Session, *, lead_id: str) -> Explanation:
    row = await _found(session, lead_id)
    agreements = await versions(session, [row.agreement_version] if row.agreement_version else [])
    cards = {card.id: card for agreement in agreements.values() for card in cards_of(agreement)}
    attributes = values(_facts.decode(row.facts))
    scores = await reading.scores(session, [row.lead_id])
    explained = [_explained(score, cards[score.scorecard], attributes) for score in scores]
    return Explanation(lead_id=row.lead_id, scores=explained)


async def _found(session: Session, lead_id: str) -> Row[Any]:
    row = await reading.lead(session, lead_id)
    if row is None:
        is_an_id = lead_id.startswith(("lead_", "anon_"))
        text = "no lead has this id or had it" if is_an_id else "ids begin with lead_ or anon_"
        raise Problem(404, "/problems/lead-unknown", "Unknown lead", text)
    return row


def _explained(row: Row[Any], card: Card, attributes: dict[str, Scalar]) -> Explained:
    by_rule = earn(card, _tally.decode(row.tally), attributes, day_of(row.as_of_at, card.zone))
    lines = [_line(line) for line in explain(card, by_rule)]
    return Explained(**_score(row).model_dump(), lines=lines)


def _line(line: ExplanationLine) -> Line:
    return Line(**msgspec.structs.asdict(line))


def _score(row: Row[Any]) -> Score:
    return Score(
        scorecard=row.scorecard,
        product=row.product,
        motion=row.motion,
        score=row.score / 100,
        dimensions={name: points / 100 for name, points in _dimensions.decode(row.dimensions).items()},
        bucket=row.bucket,
        cycle=row.cycle,
        version=row.version,
        agreement_version=row.agreement_version,
        as_of=row.as_of_at,
    )


def _qualified(row: Row[Any]) -> Qualified:
    return Qualified(
        mql_id=row.mql_id,
        cycle=row.cycle,
        product=row.product,
        motion=row.motion,
        qualified_at=row.qualified_at,
        clause=row.clause,
        ended_at=row.ended_at,
    )


def _stage(lead_id: str, mqls: Iterable[Row[Any]]) -> Stage:
    if any(mql.ended_at is None and mql.gave_way_at is None for mql in mqls):
        return "mql"
    return "subscriber" if is_provisional(lead_id) else "lead"
