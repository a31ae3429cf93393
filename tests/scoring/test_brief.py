"""However much its senders told of a lead, its MQL fits into an event, and says what the agreement asks."""

from __future__ import annotations

from decimal import Decimal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from services.scoring.brief import MAX_CLAUSE, MAX_LINES, MAX_TEXT, asked_for, cut, summed_up
from services.scoring.score import MAX_FACTS, Facts, joined, learn
from services.scoring.scorecard import cards_of
from shared.agreement import parse
from shared.agreement.checks import MAX_ATTRIBUTES
from shared.agreement.scorecards import MAX_DIMENSIONS
from shared.events import ExplanationLine, MqlQualified
from shared.topics import MAX_EVENT_BYTES
from tests.scoring.leads import AGREEMENT, ANNA, NOON, activity

WORST = "\x01" * 10_000


def line(number: int, dimension: str = "fit", points: float = 0.01) -> ExplanationLine:
    return ExplanationLine(kind="rule", dimension=dimension, group="g" * 64, rule=f"{number:064}", points=points)


def test_the_greatest_mql_that_an_agreement_allows_fits_into_an_event() -> None:
    dimensions = [f"{number:064}" for number in range(MAX_DIMENSIONS)]
    fields = {f"{number:0100}" for number in range(MAX_ATTRIBUTES)}
    event = MqlQualified(
        lead_id=ANNA,
        mql_id="mql_" + "0" * 32,
        product="p" * 64,
        motion="new_business",
        cycle=2**63,
        scorecard="s" * 64,
        score=1e12,
        dimensions=dict.fromkeys(dimensions, 1e12),
        bucket="b" * 64,
        clause=WORST[:MAX_CLAUSE],
        raised_hand=True,
        agreement_version=2**63,
        qualified_at=NOON,
        explanation=summed_up([line(number, dimensions[number % 20], 1e9 + 0.01) for number in range(6000)]),
        contact=cut({f"{number}": WORST for number in range(12)}),
        attributes=asked_for(dict.fromkeys([*fields, "other"], WORST), fields),
    )
    assert len(msgspec.json.encode(event)) < MAX_EVENT_BYTES
    assert set(event.attributes) == fields
    assert {len(str(value)) for value in event.attributes.values()} == {MAX_TEXT}


@given(st.lists(st.tuples(st.sampled_from(["fit", "engagement"]), st.integers(-(10**6), 10**6)), max_size=600))
def test_lines_that_are_summed_up_still_sum_to_each_dimension(given: list[tuple[str, int]]) -> None:
    lines = [line(number, dimension, points / 100) for number, (dimension, points) in enumerate(given)]
    told = summed_up(lines)
    assert len(told) <= MAX_LINES + 2
    for dimension in ("fit", "engagement"):
        sums = [sum(Decimal(str(one.points)) for one in some if one.dimension == dimension) for some in (lines, told)]
        assert sums[0] == sums[1]


def test_the_agreement_names_the_attributes_of_every_condition() -> None:
    route = "  - {when: {region: [EU]}, pool: all}\n  - {otherwise: true, pool: all, last"
    persona = "definitions:\n  personas: [{id: boss, owner: mia@acme.example, when: {title: {matches: '*chief*'}}}]\n"
    content = AGREEMENT.replace("  - {otherwise: true, pool: all, last", route).replace("definitions:\n", persona)
    assert parse(content).fields == {"company_size", "country", "region", "title"}
    assert all(card.fields == parse(content).fields for card in cards_of(parse(content)))


@given(st.permutations(range(12)))
def test_which_of_too_many_facts_are_kept_depends_on_no_order(order: list[int]) -> None:
    told = [
        activity("told", id=f"a{part}", attributes={f"n{part % 6}_{number:04}": part for number in range(300)})
        for part in range(12)
    ]
    facts: Facts = {}
    for place in order:
        learn(facts, told[place])
    halves: list[Facts] = [{}, {}]
    for place, one in enumerate(told):
        learn(halves[place % 2], one)
    assert len(facts) == MAX_FACTS
    assert facts == joined(*halves) == joined(*reversed(halves))
