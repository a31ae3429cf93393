"""Who gets a handoff: eligibility first, with a reason for each who is not; then a fair share of the pool.

Every assignment puts the chosen one a whole lead into debt and takes each eligible rep's share (his weight by theirs
together) off his own. Chosen is, of those who are behind, the one who would soonest be a whole lead behind: so nobody
is ever a whole lead off his share (Tijdeman, "The chairman assignment problem", 1980), which picking the one who is
furthest behind does not give. Ties go by the rep's id, so that a decision can be repeated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

from services.handoff.case import Case, Change, Handoff
from services.handoff.change import changed
from services.handoff.lifecycle import Action
from services.handoff.terms import Terms

UNROUTED_FOR_AT_MOST = timedelta(minutes=15)  # then the last resort gets it: no lead waits for a roster to change
PRECISION = 9  # decimals in which two debts differ; sums of thirds do not come out even

Member = tuple[str, str]  # pool, rep


@dataclass(frozen=True, slots=True)
class Share:
    """How far a rep is ahead of (+) or behind (-) his fair share, in leads, and how many he was given."""

    debt: float = 0.0
    assigned: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A member of the pool, as the decision saw him. `why`: why he was not eligible, or empty."""

    rep: str
    weight: int
    eligible: bool
    why: str
    debt_before: float
    debt_after: float


@dataclass(frozen=True, slots=True)
class Decision:
    """Why this rep: kept with the assignment. `chosen` None: nobody was eligible."""

    rule: str
    pool: str
    strategy: str
    candidates: tuple[Candidate, ...]
    chosen: str | None
    why: str

    def as_json(self) -> str:
        return json.dumps(asdict(self))


def decided(terms: Terms, handoff: Handoff, shares: Mapping[Member, Share]) -> Decision:
    """Who gets the handoff now, and why."""
    if because := _last_resort_because(terms, handoff):
        return _decision(terms, (), terms.last_resort, because)
    candidates = _candidates(terms, handoff, shares)
    eligible = [candidate for candidate in candidates if candidate.eligible]
    if not eligible:
        return _decision(terms, candidates, None, "nobody of the pool is eligible")
    share_of = _share_of(eligible)
    chosen = _next(eligible, share_of)
    after = tuple(
        replace(each, debt_after=each.debt_before - share_of.get(each.rep, 0) + (each.rep == chosen))
        for each in candidates
    )
    return _decision(terms, after, chosen, f"next in line for a fair share among {len(eligible)} eligible")


def routed(
    case: Case, terms: Terms, shares: Mapping[Member, Share], now: datetime, last_decision: str | None = None
) -> tuple[Case, dict[Member, Share]]:
    """The case assigned, or unrouted with the reasons; and the shares that changed.

    `last_decision`: what gave it to its last owner, whose share he gets back if the handoff was none of his business.
    """
    handoff = case.handoff
    changes: dict[Member, Share] = {}
    if handoff.route_cause == Action.REROUTE and last_decision is not None:
        changes = given_back(last_decision, shares)
    decision = decided(terms, handoff, {**shares, **changes})
    for candidate in decision.candidates:
        member = (decision.pool, candidate.rep)
        share = changes.get(member) or shares.get(member, Share())
        changes[member] = Share(candidate.debt_after, share.assigned + (candidate.rep == decision.chosen))
    change = Change(
        action=_action(handoff, decision),
        actor="baton",
        cause=handoff.mql_id if handoff.route_cause is None else handoff.route_cause,
        owner=decision.chosen,
        pool=decision.pool,
        decision=decision.as_json(),
        route_at=now + UNROUTED_FOR_AT_MOST,
    )
    return changed(case, change, terms, now), changes


def given_back(last_decision: str, shares: Mapping[Member, Share]) -> dict[Member, Share]:
    """The shares as if the last decision had not been made."""
    decision = json.loads(last_decision)
    back: dict[Member, Share] = {}
    for candidate in decision["candidates"]:
        member = (decision["pool"], candidate["rep"])
        share = shares.get(member, Share())
        debt = share.debt - candidate["debt_after"] + candidate["debt_before"]
        back[member] = Share(debt, share.assigned - (candidate["rep"] == decision["chosen"]))
    return back


def members_of(terms: Terms) -> list[Member]:
    """Whose shares a decision under these terms may move."""
    pool = terms.agreement.pool(terms.route.pool)
    return [(pool.id, member.rep) for member in pool.members] if pool else []


def _last_resort_because(terms: Terms, handoff: Handoff) -> str | None:
    expired = sum(past.why == "had it before" for past in handoff.past_owners)
    if handoff.route_cause == Action.UNROUTE:
        return f"nobody was eligible for {UNROUTED_FOR_AT_MOST}: the last resort"
    if expired > terms.policy.max_reassigns:
        return f"reassigned {terms.policy.max_reassigns} times, as often as the policy allows: the last resort"
    return None


def _candidates(terms: Terms, handoff: Handoff, shares: Mapping[Member, Share]) -> tuple[Candidate, ...]:
    pool = terms.agreement.pool(terms.route.pool)
    why_not = {past.owner: past.why for past in handoff.past_owners}
    candidates = []
    for member in sorted(pool.members if pool else (), key=lambda member: member.rep):
        rep = terms.agreement.rep(member.rep)
        why = why_not.get(member.rep, "" if rep and rep.active else "is not active")
        debt = shares.get((terms.route.pool, member.rep), Share()).debt
        candidates.append(Candidate(member.rep, member.weight, not why, why, debt, debt))
    return tuple(candidates)


def _share_of(eligible: Sequence[Candidate]) -> dict[str, float]:
    whole = sum(candidate.weight for candidate in eligible)
    return {candidate.rep: candidate.weight / whole for candidate in eligible}


def _next(eligible: Sequence[Candidate], share_of: Mapping[str, float]) -> str:
    """The one of those far enough behind whose deadline comes first."""
    if len(eligible) == 1:
        return eligible[0].rep
    slack = 1 / (2 * len(eligible) - 2)
    behind = {each.rep: round(share_of[each.rep] - each.debt_before, PRECISION) for each in eligible}
    ready = [rep for rep, by in behind.items() if by >= round(slack, PRECISION)] or list(behind)
    return min(ready, key=lambda rep: (round((1 - slack - behind[rep]) / share_of[rep], PRECISION), rep))


def _action(handoff: Handoff, decision: Decision) -> Action:
    if decision.chosen is None:
        return Action.UNROUTE
    return Action.REASSIGN if handoff.past_owners else Action.ASSIGN


def _decision(terms: Terms, candidates: tuple[Candidate, ...], chosen: str | None, why: str) -> Decision:
    route = terms.route
    return Decision(route.id or "otherwise", route.pool, route.strategy, candidates, chosen, why)
