"""Handoffs as people list them; nothing is locked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from itertools import combinations
from typing import NamedTuple

from services.handoff.case import Handoff
from services.handoff.lifecycle import State
from services.handoff.store.handoffs import NAMES, with_clocks
from shared.db import Session
from shared.sql import sql

FILTERS = {"state": "state = :state", "owner": "owner = :owner", "lead": "lead_id = :lead"}
# One statement for each choice of filters: a filter that may be off keeps the others from their index.
PAGES = {
    frozenset(chosen): sql(
        f"""
        SELECT {NAMES} FROM handoffs
        WHERE {" AND ".join(["(opened_at, handoff_id) < (:before_at, :before_id)", *map(FILTERS.__getitem__, chosen)])}
        ORDER BY opened_at DESC, handoff_id DESC LIMIT :size
        """
    )
    for count in range(len(FILTERS) + 1)
    for chosen in combinations(FILTERS, count)
}
UNROUTED = sql(
    """
    SELECT handoff_id, to_state, happened_at, decision FROM handoff_history
    WHERE handoff_id IN (SELECT wanted FROM {rows}) ORDER BY handoff_id, version
    """,
    wanted="text",
)


class Unrouted(NamedTuple):
    """Since when nobody has a handoff, and the decision (JSON) that found nobody; None: not decided yet."""

    since: datetime
    decision: str | None


async def page(
    session: Session, *, before: tuple[datetime, str], size: int, filters: Mapping[str, str]
) -> list[Handoff]:
    """The next handoffs with their clocks, from the newest. `filters`: see `FILTERS`."""
    before_at, before_id = before
    statement = PAGES[frozenset(filters)]
    rows = await session.execute(statement, None, before_at=before_at, before_id=before_id, size=size, **filters)
    return await with_clocks(session, rows)


async def unrouted(session: Session, handoff_ids: Collection[str]) -> dict[str, Unrouted]:
    """Of these handoffs, which nobody has: since when, and why each candidate cannot have it, as last decided."""
    found: dict[str, Unrouted] = {}
    for row in await session.execute(UNROUTED, rows=[(wanted,) for wanted in handoff_ids]) if handoff_ids else ():
        if row.to_state != State.UNROUTED:
            found.pop(row.handoff_id, None)
            continue
        before = found.get(row.handoff_id, Unrouted(row.happened_at, None))
        found[row.handoff_id] = Unrouted(before.since, row.decision or before.decision)
    return found
