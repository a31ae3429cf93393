"""What `baton check` asks of scoring: nothing accepted is forgotten, no score is wrong, no MQL is missing or unfounded.

Bounded, see `shared/checks.py`: two slices of each table; of leads a sample of 200, whose whole histories are folded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.engine import Row

from services.scoring import store
from services.scoring.announce import id_of
from services.scoring.lead import Lead
from services.scoring.qualify import Mql
from services.scoring.replay import Made, differences, not_qualified, twice_open, unfounded
from services.scoring.scorecard import cards_of
from services.scoring.store import checks as slices
from shared.agreement_copies import versions
from shared.checks import GRACE, SHOWN, Finding, dead_letters, oldest_published, published
from shared.db import Session
from shared.topics import dead_letter_topic

ACTIVITIES: Final = "baton.activities.v1"
DEAD_LETTERS: Final = dead_letter_topic("scoring")
BECAME: Final = ("act", "touch", "opp")  # what an item may have become, in the words of its events' ids


async def checks(session: Session, *, grace: timedelta = GRACE) -> list[Finding]:
    """I2 as far as handoff, I4 and I7 on a sample, and I22."""
    before = await session.now() - grace
    return [
        *(await _forgotten(session, before))[:SHOWN],
        *(await _lost(session, before))[:SHOWN],
        *await _replayed(session),
        *(Finding("I22", *each) for each in sorted(await slices.not_at_a_root(session))[:SHOWN]),
    ]


async def _forgotten(session: Session, before: datetime) -> list[Finding]:
    """I2: each accepted item is an activity, or its event stands in the outbox: waiting, parked, published or dead.

    Only of items younger than the oldest published row, as what is older may be pruned; without any, of minutes.
    """
    since = await oldest_published(session) or before - slices.LAG
    found = []
    for part in await slices.accepted(session, since, before):
        items = {id_of("act", row.source, row.source_id): row for row in part}
        missing = items.keys() - await slices.recorded(session, items.keys())
        first, last = min(row.received_at for row in part), max(row.received_at for row in part)
        for until in (last + slices.LAG, before + slices.DAY):  # a suspicion is worth a longer look
            missing = missing - await _told(session, missing, first, until)
        found += [
            Finding("I2", each, f"accepted in delivery {items[each].delivery_id}, and neither recorded nor told")
            for each in sorted(missing)
        ]
    return list(dict.fromkeys(found))


async def _told(session: Session, activity_ids: Collection[str], since: datetime, until: datetime) -> set[str]:
    """Those of these items whose event, of whatever kind, is in the outbox."""
    items = {each.partition("_")[2]: each for each in activity_ids}
    events = [f"{kind}_{digits}" for digits in items for kind in BECAME]
    return {items[event.partition("_")[2]] for event in await slices.told(session, events, since, until)}


async def _lost(session: Session, before: datetime) -> list[Finding]:
    """I2: each published activity is stored or dead-lettered, and not both, unless it was sent again."""
    rows = await published(session, (ACTIVITIES, DEAD_LETTERS), before=before)
    told = {row.event_id: row for row in rows if row.topic == ACTIVITIES and row.event_id.startswith("act_")}
    dead = {row.event_id for row in rows if row.topic == DEAD_LETTERS}
    stored = await slices.recorded(session, told.keys() | dead)
    missing = told.keys() - stored
    missing -= await dead_letters(session, missing)
    return [
        *(
            Finding("I2", each, f"published {told[each].published_at.isoformat()}, neither stored nor dead-lettered")
            for each in sorted(missing)
        ),
        *(
            Finding("I2", each, "both stored and dead-lettered")
            for each in sorted(await slices.stored_and_dead(session, dead & stored))
        ),
    ]


async def _replayed(session: Session) -> list[Finding]:
    """I4 and I7: what is stored of the sampled leads equals what a fresh fold of all their activities gives."""
    sample = await slices.sample(session)
    rows = sample.locked.rows
    made = {lead_id: [_made(row) for row in found] for lead_id, found in sample.mqls.items()}
    named = {row.agreement_version for row in rows.values()}
    named |= {one.agreement_version for each in made.values() for one in each}
    agreements = await versions(session, named)
    cards = {version: cards_of(agreement) for version, agreement in agreements.items()}
    leads = await store.load(session, sample.locked, cards, rows)
    found = [finding for lead in leads.values() for finding in _of_lead(lead, named - agreements.keys())]
    for lead_id, each in made.items():
        if lead_id in leads and lead_id not in sample.joined:
            found += unfounded(leads[lead_id], each, cards)
    return _some_of_each(found)


def _of_lead(lead: Lead, missing: Collection[int]) -> Iterator[Finding]:
    if lead.version in missing:
        yield Finding("I22", lead.lead_id, f"scored by version {lead.version} of the agreement, which is not here")
        return
    wrong = list(differences(lead))
    yield from wrong
    yield from twice_open(lead)
    if not wrong:  # whose state is wrong is judged by it
        yield from not_qualified(lead)


def _made(row: Row[Any]) -> Made:
    gave_way = row.gave_way_at is not None
    mql = Mql(row.mql_id, row.made_for, row.product, row.motion, row.cycle, row.ended_at, gave_way=gave_way)
    return Made(mql, row.scorecard, row.agreement_version, row.crossed_by, row.qualified_at, row.created_at)


def _some_of_each(findings: Iterable[Finding]) -> list[Finding]:
    """The first `SHOWN` of each invariant."""
    kept: dict[str, list[Finding]] = {}
    for finding in findings:
        kept.setdefault(finding.invariant, []).append(finding)
    return [finding for each in kept.values() for finding in each[:SHOWN]]
