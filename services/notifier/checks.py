"""What must hold in the notifier's database; part of `baton check`. I22 of reference/reliability.md, section 3."""

from __future__ import annotations

from datetime import timedelta

from services.notifier.store import deliveries
from shared.checks import Finding
from shared.db import Session

OVERDUE = timedelta(minutes=5)  # more than any poll, lease and restart
SHOWN = 100


async def checks(session: Session) -> list[Finding]:
    """What does not hold; empty when all is well."""
    before = await session.now() - OVERDUE
    past_lease = await deliveries.past_lease(session, before=before, size=SHOWN)
    waiting = await deliveries.waiting(session, before=before, size=SHOWN)
    found = [(row, "claimed, and past the end of its lease since") for row in past_lease]
    found += [(row, "due and not attempted since") for row in waiting]
    return [Finding("I22", row.delivery_id, f"{words} {row.next_attempt_at.isoformat()}") for row, words in found]
