"""The examples inside an agreement, lived by the engine."""

from __future__ import annotations

import pytest

from services.scoring.examples import run_examples
from shared.agreement import parse
from shared.agreement.examples import Tried
from tests.scoring.leads import AGREEMENT
from tests.support import ROOT

PRICING = "page_viewed: {times: 3, properties: {path: /pricing}}"


def tried(*examples: str) -> list[Tried]:
    """The test agreement with these examples of its scorecard."""
    lines = "".join(f"      - {{{example}}}\n" for example in examples)
    requalify = "    requalify: {after: P30D, or_points: 20}\n"
    return run_examples(parse(AGREEMENT.replace(requalify, f"{requalify}    examples:\n{lines}")))


@pytest.mark.parametrize(
    "example",
    [
        "expect: {mql: false, bucket: cold, score: 0}",
        "lead: {company_size: 500, country: US}, expect: {mql: false, score: 40}",
        "activities: [{demo_requested: now}], expect: {mql: true, bucket: cold}",
        "activities: [{email_clicked: P14D}], expect: {score: 1.67}",
        "activities: [{webinar_attended: {ago: P61D}}], expect: {score: 0}",
        f"activities: [{{{PRICING}}}], expect: {{score: 30.7}}",
        f"lead: {{company_size: 500}}, activities: [{{{PRICING}}}, {{webinar_attended: PT1H}}], "
        "expect: {mql: true, bucket: hot, score: 85.69}",
    ],
)
def test_an_example_lives_as_a_lead_would(example: str) -> None:
    (one,) = tried(example)
    assert one.holds, f"expected {one.expected}; came out {one.came_out}"


def test_a_lead_that_crossed_and_cooled_down_since_is_an_mql_in_a_cold_bucket() -> None:
    hot = f"activities: [{{{PRICING.replace('{times', '{ago: P28D, times')}}}, {{webinar_attended: P28D}}]"
    (one,) = tried(f"lead: {{company_size: 500}}, {hot}, expect: {{mql: true, bucket: cold}}")
    assert one.holds, one.came_out


@pytest.mark.parametrize("wrong", ["mql: true", "bucket: hot", "score: 3.34"])
def test_what_fails_says_what_came_out_beside_what_was_expected(wrong: str) -> None:
    _, one = tried("expect: {score: 0}", f"activities: [{{email_clicked: now}}], expect: {{{wrong}}}")
    assert one == Tried(
        ("scorecards", 0, "examples", 1), wrong.replace(":", ""), "mql false, bucket cold, score 3.33", False
    )


def test_an_mql_names_the_clause_it_met() -> None:
    (one,) = tried("activities: [{demo_requested: now}], expect: {mql: false}")
    assert not one.holds
    assert one.came_out == "mql true, bucket cold, score 0 (by activity demo_requested)"


@pytest.mark.parametrize("name", ["acme", "demo"])
def test_the_sample_agreements_keep_their_own_examples(name: str) -> None:
    outcomes = run_examples(parse((ROOT / f"deploy/agreements/{name}.yaml").read_text()))
    assert len(outcomes) == 3
    assert [one for one in outcomes if not one.holds] == []
