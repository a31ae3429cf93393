"""What a reason leads to: each one in the agreement names its class and its consequence, and only those are taken.

Three lists: rejection ("not this one", before work began), recycling (back to nurture during the work), loss of a deal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from services.handoff.lifecycle import State
from shared.agreement import Agreement, Reason, ReasonKind
from shared.nearest import did_you_mean

LISTS: Mapping[State, ReasonKind] = {State.REJECTED: "reject", State.RECYCLED: "recycle", State.LOST: "lost"}


class ReasonRefused(ValueError):
    """The reason cannot be given; the message says what would be right."""


class UnknownReason(ReasonRefused):
    """The reason is not on the list; `legal` is the list."""

    def __init__(self, kind: ReasonKind, reason: str | None, legal: tuple[str, ...]) -> None:
        said = (
            f"{reason!r} is no reason to {kind}{did_you_mean(reason, legal)}"
            if reason
            else f"a reason to {kind} is needed"
        )
        super().__init__(f"{said}; legal: {', '.join(legal)}")
        self.reason = reason
        self.legal = legal


class NoteNeeded(ReasonRefused):
    """The reason says nothing without a note."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"reason {reason!r} needs a note")
        self.reason = reason


class AttemptsNeeded(ReasonRefused):
    """The reason is only believed after so many touches."""

    def __init__(self, reason: str, needed: int, attempts: int) -> None:
        super().__init__(f"reason {reason!r} needs {needed} attempts to reach the lead; there were {attempts}")
        self.reason = reason
        self.needed = needed
        self.attempts = attempts


@dataclass(frozen=True, slots=True)
class Consequence:
    """What follows: another rep (`is_reroute`), or a nurture track; `wake_after`: the lead rests that long."""

    reason: str
    reason_class: str
    track: str | None = None
    wake_after: timedelta | None = None

    @property
    def is_reroute(self) -> bool:
        return self.track is None


def consequence(
    agreement: Agreement, kind: ReasonKind, reason: str | None, *, note: str | None, attempts: int
) -> Consequence:
    """What follows from a reason. `attempts`: touches of the owners so far. Raises a `ReasonRefused`."""
    found = agreement.reason(kind, reason) if reason else None
    if found is None:
        raise UnknownReason(kind, reason, tuple(known.id for known in agreement.reason_list(kind)))
    if found.needs_note and not (note and note.strip()):
        raise NoteNeeded(found.id)
    if attempts < found.needs_attempts:
        raise AttemptsNeeded(found.id, found.needs_attempts, attempts)
    return _consequence(found)


def of_loss(agreement: Agreement, reason: str | None) -> Consequence | None:
    """What follows from a lost deal; a CRM may tell no reason, or one of its own, and the deal is lost all the same."""
    found = agreement.reason("lost", reason) if reason else None
    return _consequence(found) if found else None


def ended_by(agreement: Agreement, state: State, reason: str | None) -> Consequence | None:
    """What follows from how a handoff ended; None while it is open, or where no reason of the list says so."""
    kind = LISTS.get(state)
    found = agreement.reason(kind, reason) if kind and reason else None
    return _consequence(found) if found else None


def _consequence(reason: Reason) -> Consequence:
    if reason.nurture is None:
        return Consequence(reason.id, reason.reason_class)
    wake_after = reason.nurture.wake_after
    return Consequence(
        reason.id, reason.reason_class, reason.nurture.track, wake_after.timedelta if wake_after else None
    )
