"""What `baton check` asks of scoring: nothing accepted is forgotten, no score is wrong, no MQL is silent or doubled."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from services.scoring import store
from services.scoring.lead import Lead, fold_anew, read
from services.scoring.score import Facts, learn
from services.scoring.scorecard import cards_of
from services.scoring.store.locks import Locked
from shared.agreement_copies import versions
from shared.checks import SHOWN, Finding
from shared.db import Session
from shared.sql import sql

SAMPLE: Final = 200  # leads whose whole histories are folded
GRACE: Final = timedelta(seconds=60)  # what is younger may still be on its way through the log
PUBLISHED_IS_KEPT: Final = timedelta(hours=12)  # half of what the relay keeps of published rows

SAMPLED = sql(
    """
    SELECT lead_id, merged_into, agreement_version, last_received_at, facts FROM leads
    WHERE merged_into IS NULL AND agreement_version > 0 AND last_received_at < :before_at
    ORDER BY last_received_at DESC, lead_id LIMIT :limit
    """
)

NOT_SCORED = sql(
    """
    SELECT outbox.event_id FROM outbox
    WHERE outbox.topic = 'baton.activities.v1' AND outbox.published_at < :before_at AND outbox.event_id LIKE 'act_%'
        AND NOT EXISTS (SELECT 1 FROM activities WHERE activities.activity_id = outbox.event_id)
        AND NOT EXISTS (
            SELECT 1 FROM outbox AS dead
            WHERE dead.event_id = outbox.event_id AND dead.topic = 'baton.scoring.dlq.v1'
        )
    ORDER BY outbox.id LIMIT :limit
    """
)

NOT_TOLD = sql(
    """
    SELECT mqls.mql_id FROM mqls
    WHERE mqls.created_at > :after_at AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.event_id = mqls.mql_id)
    ORDER BY mqls.mql_id LIMIT :limit
    """
)

TWICE_OPEN = sql(
    """
    SELECT made_for, product, motion FROM mqls WHERE ended_at IS NULL AND gave_way_at IS NULL
    GROUP BY made_for, product, motion HAVING count(*) > 1 ORDER BY made_for LIMIT :limit
    """
)

NOT_AT_A_ROOT = sql(
    """
    SELECT activities.activity_id AS subject, 'activity of a lead that is no root' AS detail
    FROM activities LEFT JOIN leads ON leads.lead_id = activities.lead_id
    WHERE leads.lead_id IS NULL OR leads.merged_into IS NOT NULL
    UNION ALL
    SELECT mqls.mql_id, 'MQL of a lead that is no root'
    FROM mqls LEFT JOIN leads ON leads.lead_id = mqls.lead_id
    WHERE leads.lead_id IS NULL OR leads.merged_into IS NOT NULL
    UNION ALL
    SELECT lead_scores.lead_id, 'score of a lead that is no root'
    FROM lead_scores LEFT JOIN leads ON leads.lead_id = lead_scores.lead_id
    WHERE leads.lead_id IS NULL OR leads.merged_into IS NOT NULL
    UNION ALL
    SELECT leads.lead_id, 'merged into a lead that is no root'
    FROM leads LEFT JOIN leads AS roots ON roots.lead_id = leads.merged_into
    WHERE leads.merged_into IS NOT NULL AND (roots.lead_id IS NULL OR roots.merged_into IS NOT NULL)
    LIMIT :limit
    """
)


async def checks(session: Session) -> list[Finding]:
    """I2, I4 (a sample), I7 and I22, as far as this service's tables tell."""
    now = await session.now()
    before = now - GRACE
    unscored = await session.execute(NOT_SCORED, before_at=before, limit=SHOWN)
    untold = await session.execute(NOT_TOLD, after_at=now - PUBLISHED_IS_KEPT, limit=SHOWN)
    doubled = await session.execute(TWICE_OPEN, limit=SHOWN)
    orphans = await session.execute(NOT_AT_A_ROOT, limit=SHOWN)
    return [
        *(Finding("I2", row.event_id, "published, but neither stored nor dead-lettered") for row in unscored),
        *(await _wrong_scores(session, before))[:SHOWN],
        *(Finding("I7", row.mql_id, "this MQL was told to nobody") for row in untold),
        *(Finding("I7", row.made_for, f"two open MQLs for {row.product}, {row.motion}") for row in doubled),
        *(Finding("I22", row.subject, row.detail) for row in orphans),
    ]


async def _wrong_scores(session: Session, before: datetime) -> list[Finding]:
    """I4: what is stored equals what a fresh fold of all activities gives."""
    rows = {row.lead_id: row for row in await session.execute(SAMPLED, before_at=before, limit=SAMPLE)}
    if not rows:
        return []
    agreements = await versions(session, {row.agreement_version for row in rows.values()})
    cards = {version: cards_of(agreement) for version, agreement in agreements.items()}
    unlocked = Locked(rows, {lead_id: lead_id for lead_id in rows})
    leads = await store.load(session, unlocked, cards, rows)
    return [finding for lead in leads.values() for finding in _differences(lead)]


def _differences(lead: Lead) -> Iterator[Finding]:
    stored = list(lead.standings)
    facts: Facts = {}
    for activity in lead.history or ():
        learn(facts, activity)
    if facts != lead.facts:
        yield Finding("I4", lead.lead_id, "attributes differ from those its activities tell")
    fold_anew(lead, [standing.card for standing in stored], lead.version)
    for kept, fresh in zip(stored, lead.standings, strict=True):
        displayed = lead.displayed.get(kept.card.id)
        if kept.tally != fresh.tally:
            yield Finding("I4", lead.lead_id, f"{kept.card.id}: the tally differs from a fresh fold")
        elif displayed is None or displayed.reading != read(lead, fresh):
            yield Finding("I4", lead.lead_id, f"{kept.card.id}: the score differs from a fresh fold")
