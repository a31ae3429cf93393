"""What people of sales do with a handoff: accept, reject, recycle, touch.

Each is said by somebody (`by`) about one version of the handoff (`If-Match`), under its lock: of two at once one wins,
and the other is told that it changed meanwhile. The API key says which program asks; `by`, which is trusted, for whom.

The owner speaks for the handoff; his manager, or the head of sales, may in his place: people fall ill. Not for a touch:
the agreement counts what the owner did. One that comes after a deadline which no worker saw yet records the breach too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from services.handoff.case import Change, Handoff, Touch
from services.handoff.lifecycle import Action, IllegalTransition
from services.handoff.lifecycle import transition as legal
from services.handoff.recycle import AttemptsNeeded, NoteNeeded, ReasonRefused, UnknownReason
from services.handoff.terms import Terms
from services.handoff.transitions import lock_handoff, record_touch, terms_for, transition
from shared.agreement import Agreement
from shared.clock import uuid7
from shared.db import Session
from shared.nearest import did_you_mean, nearest
from shared.web import Problem, version_changed

Verb = Literal["accept", "reject", "recycle", "touch"]
ACTIONS: Mapping[Verb, Action] = {
    "accept": Action.ACCEPT,
    "reject": Action.REJECT,
    "recycle": Action.RECYCLE,
    "touch": Action.TOUCH,
}
SOURCE = "api"


class NoSuchHandoff(Problem):
    def __init__(self) -> None:
        super().__init__(404, "/problems/no-such-handoff", "No such handoff", "GET /v1/handoffs lists them")


class NotOwner(Problem):
    def __init__(self, verb: Verb, owner: str | None) -> None:
        others = "" if verb == "touch" else ", his manager or the head of sales"
        text = f"only its owner{others} may {verb} it" + ("" if owner else "; nobody owns it now")
        super().__init__(403, "/problems/not-owner", "Not the owner", text, owner=owner)


class UnknownRep(Problem):
    def __init__(self, by: str, known: list[str]) -> None:
        text = f"`by` is nobody the agreement knows{did_you_mean(by, known)}; give a rep's id or e-mail address"
        super().__init__(422, "/problems/unknown-rep", "Unknown rep", text, nearest=nearest(by, known), allowed=known)


class UnknownTouchKind(Problem):
    def __init__(self, kind: str | None, known: tuple[str, ...]) -> None:
        said = f"{kind!r} is no touch under this agreement{did_you_mean(kind, known)}" if kind else "`kind` is missing"
        near = nearest(kind, known) if kind else None
        text = f"{said}; allowed: {', '.join(known)}"
        super().__init__(
            422, "/problems/unknown-touch-kind", "Unknown kind of touch", text, nearest=near, allowed=known
        )


@dataclass(frozen=True, slots=True)
class Word:
    """What somebody says. `by`: any name of a rep, or a manager's e-mail; `kind` and `occurred_at`: a touch's."""

    by: str
    reason: str | None = None
    note: str | None = None
    kind: str | None = None
    occurred_at: datetime | None = None


async def review(session: Session, handoff_id: str, verb: Verb, word: Word, *, expected: int, cause: str) -> Handoff:
    """Do what somebody says about the version that he has seen; the handoff afterwards. Raises `Problem`."""
    handoff = await lock_handoff(session, handoff_id)
    if handoff is None:
        raise NoSuchHandoff
    if handoff.version != expected:
        raise version_changed(handoff.version)
    now = await session.now()
    terms = await terms_for(session, handoff)
    try:
        legal(handoff.state, ACTIONS[verb])
        person = _person(terms.agreement, word.by)
        if verb == "touch":
            return await record_touch(session, handoff, _touch(handoff, terms, word, person, now), now=now)
        _require_say(handoff, terms, verb, person)
        change = Change(ACTIONS[verb], person, cause, reason=word.reason, note=word.note)
        return await transition(session, handoff, change, now=now)
    except IllegalTransition as refused:
        raise _illegal(verb, refused) from refused
    except ReasonRefused as refused:
        raise _reason_problem(refused) from refused


def _person(agreement: Agreement, by: str) -> str:
    """Who is meant: a rep's id, or the e-mail of somebody who is none. Raises `UnknownRep`."""
    managers = {rep.manager.casefold(): rep.manager for rep in agreement.reps if rep.manager}
    person = agreement.owner(by) or managers.get(by.casefold())
    if person is None:
        raise UnknownRep(by, [rep.id for rep in agreement.reps])
    return person


def _require_say(handoff: Handoff, terms: Terms, verb: Verb, person: str) -> None:
    if handoff.owner is None:
        raise NotOwner(verb, None)
    manager = terms.performer(terms.manager_of(handoff.owner))
    head = terms.performer(terms.agreement.parties.sales.head)
    if person not in (handoff.owner, manager, head):
        raise NotOwner(verb, handoff.owner)


def _touch(handoff: Handoff, terms: Terms, word: Word, person: str, now: datetime) -> Touch:
    """The touch as it is stored. A former owner may still tell of what he did while it was his."""
    if word.kind not in terms.touch_kinds:
        raise UnknownTouchKind(word.kind, terms.touch_kinds)
    touch_id = f"touch_{uuid7()}"
    touch = Touch(
        touch_id=touch_id,
        lead_id=handoff.lead_id,
        came_in_under=handoff.opened_for,
        kind=word.kind,
        performer=person,
        source=SOURCE,
        source_id=touch_id,
        occurred_at=min(word.occurred_at or now, now),
        received_at=now,
    )
    if not handoff.was_owned_by(person, touch.occurred_at):
        raise NotOwner("touch", handoff.owner)
    return touch


def _illegal(verb: Verb, refused: IllegalTransition) -> Problem:
    allowed = [action for action in ACTIONS if ACTIONS[action] in refused.allowed]
    text = f"a handoff that is {refused.state} cannot be given a {verb}; allowed: {', '.join(allowed) or 'nothing'}"
    return Problem(409, "/problems/illegal-transition", "Not in this state", text, state=refused.state, allowed=allowed)


def _reason_problem(refused: ReasonRefused) -> Problem:
    text = str(refused)
    match refused:
        case UnknownReason(reason=reason, legal=allowed):
            near = nearest(reason, allowed) if reason else None
            title = "Unknown reason"
            return Problem(422, "/problems/unknown-reason", title, text, reason=reason, nearest=near, allowed=allowed)
        case NoteNeeded(reason=reason):
            return Problem(422, "/problems/note-required", "Note required", text, reason=reason)
        case AttemptsNeeded(reason=reason, needed=needed, attempts=made):
            title = "More attempts required"
            return Problem(422, "/problems/attempts-required", title, text, reason=reason, needed=needed, attempts=made)
    raise AssertionError(f"{type(refused).__name__} has no problem")
