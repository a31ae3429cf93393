"""What must hold in handoff's books at any time: `baton check` lists every exception, and there is none.

I8: handoff and MQL belong together. I9: each handoff has exactly the open clocks that its state and policy imply. I10:
no clock fired before it was due, none is overdue. I12: every history is a legal walk that ends where the handoff is.
I22: nothing is left over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from services.handoff.case import Handoff
from services.handoff.clock import implied_open_milestones
from services.handoff.desk import handoff_id_of
from services.handoff.lifecycle import TABLE, State
from services.handoff.store import handoffs
from services.handoff.transitions import load_agreements, terms_in
from shared.agreement import Agreement
from shared.checks import Finding
from shared.db import Session
from shared.sql import sql

PAGE = 500
SHOWN = 20  # of one kind: the first ones tell what is wrong
OVERDUE = timedelta(minutes=1)  # a worker looks twice a second; after this none is there

EARLY = sql(
    "SELECT clock_id FROM clocks WHERE breached_at < due_at OR met_at < started_at ORDER BY clock_id LIMIT :shown"
)
FORGOTTEN = sql(
    "SELECT clock_id, due_at FROM clocks WHERE state = 'open' AND due_at < :before_at ORDER BY clock_id LIMIT :shown"
)
BROKEN_WALKS = sql(
    """
    SELECT handoff_id, version FROM (
        SELECT handoff_id, version, from_state,
            lag(to_state) OVER (PARTITION BY handoff_id ORDER BY version) AS came_to,
            row_number() OVER (PARTITION BY handoff_id ORDER BY version) AS place
        FROM handoff_history
    ) AS walked
    WHERE place <> version OR coalesce(from_state, '') <> coalesce(came_to, '')
    ORDER BY handoff_id, version LIMIT :shown
    """
)
STEPS = sql(
    "SELECT from_state, to_state, type, min(handoff_id) AS one FROM handoff_history GROUP BY from_state, to_state, type"
)
WRONG_ENDS = sql(
    """
    SELECT handoffs.handoff_id FROM handoffs LEFT JOIN handoff_history AS last
        ON last.handoff_id = handoffs.handoff_id AND last.version = handoffs.version
    WHERE last.to_state IS NULL OR last.to_state <> handoffs.state ORDER BY handoffs.handoff_id LIMIT :shown
    """
)
LEFT_OVER = sql(
    """
    SELECT clock_id AS subject, 'this clock has no handoff' AS detail FROM clocks
        WHERE handoff_id NOT IN (SELECT handoff_id FROM handoffs)
    UNION ALL SELECT handoff_id, 'this history has no handoff' FROM handoff_history
        WHERE handoff_id NOT IN (SELECT handoff_id FROM handoffs)
    UNION ALL SELECT handoff_id, 'its lead has no row, or was absorbed' FROM handoffs
        WHERE lead_id NOT IN (SELECT lead_id FROM leads WHERE merged_into IS NULL)
    UNION ALL SELECT touch_id, 'its lead has no row, or was absorbed' FROM touches
        WHERE lead_id NOT IN (SELECT lead_id FROM leads WHERE merged_into IS NULL)
    UNION ALL SELECT opportunity_id, 'its lead has no row, or was absorbed' FROM opportunities
        WHERE lead_id NOT IN (SELECT lead_id FROM leads WHERE merged_into IS NULL)
    UNION ALL SELECT lead_id, 'merged into a lead that is no root' FROM leads WHERE merged_into IS NOT NULL
        AND merged_into NOT IN (SELECT lead_id FROM leads WHERE merged_into IS NULL)
    UNION ALL SELECT handoff_id, 'unrouted, and the router will not look' FROM handoffs
        WHERE state = 'unrouted' AND (route_at IS NULL OR route_at < :before_at)
    LIMIT :shown
    """
)
PAGE_OF_ALL = sql("SELECT handoff_id FROM handoffs WHERE handoff_id > :after ORDER BY handoff_id LIMIT :size")


async def checks(session: Session) -> list[Finding]:
    """Every finding, at most twenty of a kind. Reads only; a handoff that moves meanwhile is left to the next time."""
    before = await session.now() - OVERDUE
    findings = [*await _timing(session, before), *await _walks(session)]
    left_over = await session.execute(LEFT_OVER, before_at=before, shown=SHOWN)
    findings += [Finding("I22", row.subject, row.detail) for row in left_over]
    after, clocks_wrong = "", list[Finding]()
    while rows := await session.execute(PAGE_OF_ALL, after=after, size=PAGE):
        found = await handoffs.read(session, [row.handoff_id for row in rows])
        clocks_wrong += [*_pairs(found), *await _clocks(session, found)]
        after = rows[-1].handoff_id
    return findings + clocks_wrong[:SHOWN]


def _pairs(found: list[Handoff]) -> Iterator[Finding]:
    for handoff in found:
        if handoff.handoff_id != handoff_id_of(handoff.mql_id):
            yield Finding("I8", handoff.handoff_id, f"belongs to {handoff.mql_id}, whose handoff has another id")


async def _clocks(session: Session, found: list[Handoff]) -> list[Finding]:
    agreements = await load_agreements(session, found)
    wrong = {handoff.handoff_id: (handoff.version, detail) for handoff, detail in _wrong_clocks(found, agreements)}
    if not wrong:
        return []
    again = await handoffs.read(session, wrong)  # the row and its clocks were two statements: did it move between?
    return [
        Finding("I9", handoff.handoff_id, detail)
        for handoff, detail in _wrong_clocks(again, agreements)
        if wrong[handoff.handoff_id] == (handoff.version, detail)
    ]


def _wrong_clocks(found: list[Handoff], agreements: dict[int, Agreement]) -> Iterator[tuple[Handoff, str]]:
    for handoff in found:
        running = {(clock.milestone, clock.subject) for clock in handoff.clocks if clock.is_open}
        implied = implied_open_milestones(terms_in(agreements, handoff).policy, handoff.position, handoff.clocks)
        if running != implied:
            yield handoff, f"{handoff.state}: open {_words(running)}, implied {_words(implied)}"


async def _timing(session: Session, before: datetime) -> list[Finding]:
    early = await session.execute(EARLY, shown=SHOWN)
    forgotten = await session.execute(FORGOTTEN, before_at=before, shown=SHOWN)
    return [
        *(Finding("I10", row.clock_id, "breached before it was due, or met before it started") for row in early),
        *(Finding("I10", row.clock_id, f"open, and due since {row.due_at.isoformat()}") for row in forgotten),
    ]


async def _walks(session: Session) -> list[Finding]:
    broken = await session.execute(BROKEN_WALKS, shown=SHOWN)
    ends = await session.execute(WRONG_ENDS, shown=SHOWN)
    steps = [
        Finding("I12", row.one, f"{row.from_state} -> {row.to_state} by {row.type} is no step of the lifecycle")
        for row in await session.execute(STEPS)
        if not _is_legal(row.from_state, row.to_state, row.type)
    ]
    return [
        *(
            Finding("I12", row.handoff_id, f"version {row.version} does not follow from the one before")
            for row in broken
        ),
        *(Finding("I12", row.handoff_id, "its history does not end in its state") for row in ends),
        *steps[:SHOWN],
    ]


def _is_legal(from_state: str | None, to_state: str, event: str) -> bool:
    source = State(from_state) if from_state else None
    return any(
        row.event == event and source in row.sources and to_state == (row.target or source) for row in TABLE.values()
    )


def _words(pairs: Iterable[tuple[str, str]]) -> str:
    return ", ".join(sorted(milestone for milestone, _ in pairs)) or "none"
