"""What the services ask an agreement, and that the samples are read as they are written."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from shared.agreement import Agreement, handoff_facts, parse, sha256
from shared.agreement.source import Scalar

AGREEMENTS = Path(__file__).resolve().parents[2] / "deploy/agreements"
ACME = (AGREEMENTS / "acme.yaml").read_text()
DEMO = (AGREEMENTS / "demo.yaml").read_text()


@pytest.fixture(scope="module")
def acme() -> Agreement:
    return parse(ACME)


def test_the_sample_reads_as_it_is_written(acme: Agreement) -> None:
    (card,) = acme.scorecards
    assert (card.id, card.product, card.motion) == ("robots-new-business", "robots", "new_business")
    fit, engagement = card.dimensions
    assert (fit.cap, fit.floor, fit.half_life) == (100, 0, None)
    assert engagement.half_life is not None
    assert engagement.half_life.timedelta == timedelta(days=14)
    pricing = engagement.groups[0].rules[0]
    assert (pricing.points_hundredths, pricing.limit and pricing.limit.times, pricing.limit and pricing.limit.per) == (
        1500,
        3,
        "day",
    )
    assert [bucket.id for bucket in card.buckets] == ["hot", "warm", "cold"]
    assert card.mql.qualify_max_age.timedelta == timedelta(days=2)


def test_a_clause_has_thresholds_a_raised_hand_or_both(acme: Agreement) -> None:
    points, demo, sales_form = acme.scorecards[0].clauses
    assert points.raised_hand is None
    assert points.thresholds.holds({"fit": 30, "engagement": 50})
    assert not points.thresholds.holds({"fit": 29.99, "engagement": 50})
    assert demo.raised_hand is not None
    assert demo.raised_hand.holds_for("demo_requested", {})
    assert demo.thresholds.holds({"fit": 0, "engagement": 0})
    assert sales_form.raised_hand is not None
    assert sales_form.raised_hand.holds_for("form_submitted", {"form": "EU Contact-Sales"})
    assert not sales_form.raised_hand.holds_for("form_submitted", {"form": "newsletter"})
    assert not sales_form.thresholds.holds({"fit": 9, "engagement": 90})
    assert str(points) == "fit >= 30 and engagement >= 50"
    assert str(demo) == "activity demo_requested"


@pytest.mark.parametrize(
    ("dimensions", "bucket"),
    [({"fit": 50, "engagement": 60}, "hot"), ({"fit": 49, "engagement": 60}, "warm"), ({"fit": 0}, "cold")],
)
def test_the_first_bucket_that_holds_is_the_leads(acme: Agreement, dimensions: dict[str, int], bucket: str) -> None:
    assert acme.scorecards[0].bucket_for(dimensions).id == bucket


def facts(*, bucket: str = "hot", raised_hand: bool = False, **attributes: Scalar) -> dict[str, Scalar]:
    return handoff_facts(
        product="robots", motion="new_business", bucket=bucket, raised_hand=raised_hand, attributes=attributes
    )


def test_routes_and_policies_are_chosen_from_the_top(acme: Agreement) -> None:
    canada, france = facts(country="CA"), facts(country="FR", bucket="cold")
    assert (acme.route_for(canada).id, acme.policy_for(canada).id) == ("north-america", "hot")
    assert (acme.route_for(france).id, acme.policy_for(france).id) == ("otherwise", "otherwise")
    assert acme.last_resort_of(acme.route_for(canada)) == "sam@acme.example"


def test_what_a_lead_qualified_for_is_not_overwritten_by_its_attributes() -> None:
    attributes: dict[str, Scalar] = {"product": "x", "bucket": "y", "raised_hand": True}
    found = handoff_facts(product="robots", motion="renewal", bucket="hot", raised_hand=False, attributes=attributes)
    assert found == {"product": "robots", "motion": "renewal", "bucket": "hot", "raised_hand": False}


def test_a_policy_may_ask_for_a_raised_hand() -> None:
    agreement = parse(ACME.replace("when: {bucket: hot}", "when: {raised_hand: true}", 1))
    raised, silent = (agreement.policy_for(facts(raised_hand=hand)).when for hand in (True, False))
    assert raised is not None
    assert silent is None


@pytest.mark.parametrize("name", ["ana", "ANA", "ana@acme.example", "Ana@ACME.example", "51"])
def test_a_rep_is_known_by_id_email_and_crm_id(acme: Agreement, name: str) -> None:
    assert acme.rep_by_performer(name) is acme.rep("ana")
    assert acme.owner(name) == "ana"


def test_a_head_may_own_a_lead_without_being_a_rep(acme: Agreement) -> None:
    assert acme.rep_by_performer("sam@acme.example") is None
    assert acme.owner("Sam@acme.example") == "sam@acme.example"
    assert acme.email_of("sam@acme.example") == "sam@acme.example"
    assert acme.email_of("bo") == "bo@acme.example"
    assert acme.owner("nobody@acme.example") is None
    assert acme.manager_of("chi") == "ana@acme.example"
    assert acme.manager_of("sam@acme.example") == "sam@acme.example"


def test_a_day_of_an_sla_is_a_working_day_of_its_calendar(acme: Agreement) -> None:
    hot = acme.sla.policies[0]
    allowed = {milestone.id: acme.allowed_seconds(hot, milestone) for milestone in hot.milestones}
    assert allowed == {"accept": 300, "first_touch": 600, "next_step": 2 * 8 * 3600}
    assert parse(DEMO).allowed_seconds(hot.model_copy(update={"calendar": "always"}), hot.milestones[2]) == 2 * 86_400


def test_reasons_say_what_follows(acme: Agreement) -> None:
    reroute, no_budget = acme.reason("reject", "wrong_territory"), acme.reason("recycle", "no_budget")
    assert reroute is not None
    assert reroute.nurture is None
    assert no_budget is not None
    assert no_budget.nurture is not None
    assert (no_budget.nurture.track, str(no_budget.nurture.wake_after)) == ("budget-track", "P90D")
    assert acme.reason("reject", "no_budget") is None
    assert [reason.id for reason in acme.reason_list("lost")] == ["competitor", "price"]


def test_an_unnamed_route_or_policy_is_known_by_its_place() -> None:
    agreement = parse(ACME.replace("id: north-america, ", "").replace("- id: warm\n      when", "- when"))
    assert [route.id for route in agreement.routing] == ["route-1", "otherwise"]
    assert [policy.id for policy in agreement.sla.policies] == ["hot", "policy-2", "otherwise"]


def test_an_agreement_is_the_key_of_what_is_compiled_from_it(acme: Agreement) -> None:
    again = parse.__wrapped__(ACME)
    assert parse(ACME) is acme
    assert again is not acme
    assert (again, hash(again)) == (acme, hash(acme))
    with pytest.raises(ValueError, match="frozen"):
        setattr(acme, "timezone", "UTC")  # noqa: B010 - what mypy forbids, happens too


def test_the_demo_differs_from_the_sample_only_in_its_clocks(acme: Agreement) -> None:
    demo = parse(DEMO)
    but = {"sla", "effective_from", "effective_to"}
    assert demo.model_copy(update=dict.fromkeys(but)) == acme.model_copy(update=dict.fromkeys(but))
    assert demo.calendar("always").week_seconds == 7 * 86_400
    for policy in demo.sla.policies[:2]:
        first_touch, accept = policy.milestone("first_touch"), policy.milestone("accept")
        assert first_touch is not None
        assert accept is not None
        assert 5 <= demo.allowed_seconds(policy, first_touch) <= 15 < demo.allowed_seconds(policy, accept)
        assert policy.on_breach == ("notify_manager", "reassign")


def test_a_signature_names_the_exact_bytes() -> None:
    assert sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256("a: 1\n") != sha256("a: 1")


def test_norway_is_a_country_and_a_time_of_day_is_text() -> None:
    agreement = parse(ACME.replace("country: [US, CA]", "country: [NO, on]"))
    assert agreement.route_for(facts(country="NO")).id == "north-america"
