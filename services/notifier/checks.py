"""What must hold in the notifier's database; part of `baton check`. The numbers are those of docs/checks.md."""

from __future__ import annotations

from datetime import timedelta

from services.notifier.store import checks as slices
from shared.checks import GRACE, SHOWN, Finding
from shared.db import Session


async def checks(session: Session, *, grace: timedelta = GRACE) -> list[Finding]:
    """I22: no claim outlived its lease by `grace`, nothing that is due waits longer, and nothing belongs to nothing.

    Reads what is pending, and slices of the rest.
    """
    before = await session.now() - grace
    late = [(row, "claimed, and past the end of its lease since") for row in await slices.past_lease(session, before)]
    late += [(row, "due and not attempted since") for row in await slices.waiting(session, before)]
    return [
        *(Finding("I22", row.delivery_id, f"{words} {row.next_attempt_at.isoformat()}") for row, words in late),
        *(Finding("I22", *each) for each in sorted(await slices.left_over(session))[:SHOWN]),
    ]
