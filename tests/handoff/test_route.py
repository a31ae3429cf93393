"""Who gets a handoff, and that everybody gets a fair share."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from services.handoff.case import Handoff, PastOwner
from services.handoff.lifecycle import State
from services.handoff.route import Member, Share, decided, routed
from services.handoff.terms import Terms
from shared.agreement import Pool, Rep
from shared.agreement.routing import Member as PoolMember
from tests.handoff.terms import NOON, minutes, opened, terms


def with_pool(weights: list[int]) -> Terms:
    """The terms with a pool of as many reps."""
    its = terms()
    reps = tuple(Rep(id=f"rep{place:02}", name="R", email=f"r{place}@acme.example") for place in range(len(weights)))
    members = tuple(PoolMember(rep=rep.id, weight=weight) for rep, weight in zip(reps, weights, strict=True))
    pools = (Pool(id="robots", members=members),)
    return replace(its, agreement=its.agreement.model_copy(update={"reps": reps, "pools": pools}))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.integers(1, 80))
def test_nobody_is_ever_a_whole_lead_off_his_share(weights: list[int], leads: int) -> None:
    its, shares, case = with_pool(weights), dict[Member, Share](), opened()
    for given_out in range(1, leads + 1):
        _, changes = routed(case, its, shares, NOON)
        shares |= changes
        for place, weight in enumerate(weights):
            fair = given_out * weight / sum(weights)
            assert abs(shares["robots", f"rep{place:02}"].assigned - fair) < 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=30, max_size=30))
def test_a_share_given_back_is_as_if_it_had_not_been_given(rerouted: list[bool]) -> None:
    its, shares, counted = with_pool([2, 1, 1]), dict[Member, Share](), 0
    for is_rerouted in rerouted:
        case, changes = routed(opened(), its, shares, NOON)
        after = shares | changes
        if is_rerouted:
            asks = replace(case.handoff, state=State.UNROUTED, route_cause="reroute", past_owners=())
            _, again = routed(replace(case, handoff=asks), its, after, NOON, case.lines[0].decision)
            after |= again
        shares, counted = after, counted + 1
        assert sum(share.assigned for share in shares.values()) == counted
        assert abs(sum(share.debt for share in shares.values())) < 1e-6
        assert all(abs(share.debt) < 1 for share in shares.values())


def handoff(past_owners: tuple[PastOwner, ...] = ()) -> Handoff:
    return replace(opened().handoff, past_owners=past_owners)


def test_who_is_not_eligible_is_named_with_the_reason() -> None:
    past = (PastOwner("ana", NOON, "rejected it"), PastOwner("bo", NOON, "had it before"))
    decision = decided(terms(), handoff(past_owners=past), {})
    assert decision.chosen == "chi"
    assert {each.rep: each.why for each in decision.candidates} == {
        "ana": "rejected it",
        "bo": "had it before",
        "chi": "",
    }


def test_a_tie_goes_to_the_first_id() -> None:
    assert decided(with_pool([1, 1, 1]), handoff(), {}).chosen == "rep00"


def test_who_was_away_does_not_pay_for_it_and_is_not_flooded_afterwards() -> None:
    shares = {("robots", "rep00"): Share(0.0), ("robots", "rep01"): Share(0.0)}
    its = with_pool([1, 1])
    away = (PastOwner("rep01", NOON, "had it before"),)
    for _ in range(10):
        decision = decided(its, handoff(past_owners=away), shares)
        shares |= {("robots", each.rep): Share(each.debt_after) for each in decision.candidates}
    assert shares["robots", "rep01"].debt == 0


def test_without_anybody_eligible_it_is_unrouted_with_the_reasons() -> None:
    its = terms(product="sensors")
    case, _ = routed(opened(product="sensors"), its, {}, NOON)
    assert case.handoff.state == "unrouted"
    assert [event.type for event in case.events] == ["handoff.unrouted", "nurture.suspended"]
    decision = json.loads(case.lines[0].decision or "")
    assert (decision["chosen"], decision["candidates"][0]["why"]) == (None, "is not active")


def test_who_stays_unrouted_goes_to_the_last_resort() -> None:
    its = terms(product="sensors")
    case, _ = routed(opened(product="sensors"), its, {}, NOON)
    assert case.handoff.route_at == NOON + minutes(15)
    case, _ = routed(case, its, {}, NOON + minutes(15))
    assert (case.handoff.state, case.handoff.owner) == ("assigned", its.last_resort)


def test_after_as_many_reassignments_as_agreed_the_last_resort_gets_it() -> None:
    past = (PastOwner("ana", NOON, "had it before"), PastOwner("bo", NOON, "had it before"))
    its = terms()
    assert its.policy.max_reassigns == 1
    assert decided(its, handoff(past_owners=past[:1]), {}).chosen == "bo"
    assert decided(its, handoff(past_owners=past), {}).chosen == its.last_resort
