"""The score is a pure fold (law 4)."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from services.scoring.lead import Lead, apply, fold_anew
from services.scoring.lead import read as read_lead
from services.scoring.score import Facts, Reading, Tally, add, earn, explain, fold, learn, read, values
from services.scoring.scorecard import ONE, cards_of, day_of, decay_table
from shared.agreement import parse
from shared.events import ActivityRecorded, Scalar
from tests.scoring.leads import AGREEMENT, ANNA, NOON, activity, card, lives, pricing

AT = NOON + timedelta(days=90)
PRECISE = Context(prec=60)


def believed(activities: list[ActivityRecorded]) -> Facts:
    facts: Facts = {}
    for one in activities:
        learn(facts, one)
    return facts


def score(activities: list[ActivityRecorded], as_of: datetime = NOON) -> Reading:
    return read(card(), fold(card(), activities), believed(activities), as_of)


def shuffled(activities: list[ActivityRecorded], order: st.DataObject) -> list[ActivityRecorded]:
    return order.draw(st.permutations(activities))


@given(lives(), st.data())
def test_the_order_of_activities_does_not_change_the_score(life: list[ActivityRecorded], data: st.DataObject) -> None:
    assert score(shuffled(life, data), AT) == score(life, AT)


@given(lives(), lives(prefix="b"), st.data())
def test_tallies_of_parts_add_up_to_the_tally_of_the_whole(
    one: list[ActivityRecorded], other: list[ActivityRecorded], data: st.DataObject
) -> None:
    whole = fold(card(), shuffled(one + other, data), cycle_started_at=NOON)
    parts = [fold(card(), part, cycle_started_at=NOON) for part in (one, other)]
    assert add(*parts) == add(*reversed(parts)) == whole


@given(lives())
def test_a_tally_survives_being_stored(life: list[ActivityRecorded]) -> None:
    tally = fold(card(), life)
    assert msgspec.json.decode(msgspec.json.encode(tally), type=Tally) == tally


@given(lives(), st.integers(0, 200))
def test_the_lines_of_the_explanation_sum_to_the_score_exactly(life: list[ActivityRecorded], days: int) -> None:
    as_of = AT + timedelta(days=days)
    by_rule = earn(card(), fold(card(), life), values(believed(life)), day_of(as_of, card().zone))
    reading, lines = score(life, as_of), explain(card(), by_rule)
    for dimension, net in reading.dimensions.items():
        points = [Decimal(str(line.points)) for line in lines if line.dimension == dimension]
        assert sum(points, Decimal(0)) == Decimal(net) / 100
    assert sum((Decimal(str(line.points)) for line in lines), Decimal(0)) == Decimal(reading.score) / 100


def test_the_fourth_pricing_page_of_a_day_gives_nothing() -> None:
    three, four = ([pricing(minutes) for minutes in range(n)] for n in (3, 4))
    assert score(three) == score(four)
    assert score(three).dimensions["engagement"] == 3000 + 70  # two pages an hour count for being there


def test_the_day_of_a_limit_ends_at_midnight_in_new_york() -> None:
    midnight = datetime(2026, 3, 11, 4, 0, tzinfo=UTC)  # summer time began on 8 March
    evening = [activity(at=midnight - timedelta(minutes=n), properties={"path": "/pricing"}) for n in (1, 2, 3, 4)]
    morning = [activity(at=midnight + timedelta(minutes=1), properties={"path": "/pricing"})]
    rule = next(rule for rule in card().rules if rule.id == "pricing")
    by_rule = earn(card(), fold(card(), evening + morning), {}, day_of(midnight, card().zone))
    assert by_rule[rule.place].number == 4


def test_a_weekly_limit_takes_the_earliest_of_the_iso_week() -> None:
    monday = datetime(2026, 3, 9, 16, 0, tzinfo=UTC)
    visits = [activity(at=monday + timedelta(days=n), properties={"path": "/careers"}) for n in (2, 0, 6, 7)]
    tally = fold(card(), visits)
    rule = next(rule for rule in card().rules if rule.id == "careers")
    sunday = earn(card(), tally, {}, day_of(monday + timedelta(days=6), card().zone))[rule.place]
    assert (sunday.number, sunday.points) == (2, round(-1500 * 2 ** (-6 / 14)) - 1500)


def test_after_a_half_life_a_click_counts_half_and_the_line_is_rounded_once() -> None:
    clicks = [activity("email_clicked", NOON + timedelta(seconds=n)) for n in range(3)]
    assert score(clicks, NOON + timedelta(days=14)).score == 500  # 3 * 3.33 / 2 = 4.995


def test_what_is_older_than_the_lookback_counts_for_nothing() -> None:
    click = [activity("email_clicked")]
    assert score(click, NOON + timedelta(days=60)).score > 0
    assert score(click, NOON + timedelta(days=61)).score == 0


def test_a_group_floor_stops_the_damage_and_the_dimension_never_falls_below_nothing() -> None:
    careers = [activity(at=NOON + timedelta(weeks=n), properties={"path": "/careers"}) for n in range(4)]
    reading = score(careers, NOON + timedelta(weeks=3))
    assert reading.dimensions["engagement"] == 0


def test_facts_do_not_fade_and_the_later_one_is_believed() -> None:
    old = activity("profile_updated", NOON - timedelta(days=1), id="z", attributes={"company_size": 5})
    new = activity("profile_updated", NOON, id="a", attributes={"company_size": 500})
    twin = activity("profile_updated", NOON, id="b", attributes={"company_size": 7})
    assert score([new, old], AT).dimensions["fit"] == 3000
    assert values(believed([twin, new, old])) == values(believed([old, new, twin])) == {"company_size": 7}


FLAGGED = AGREEMENT.replace("{company_size: {gte: 200}}, points: 30", "{flag: true}, points: 30")
_mixed = st.sampled_from([True, 1, 1.0, False, 0, 0.0, "1", "true", None])


@given(st.lists(st.tuples(_mixed, st.integers(0, 3)), max_size=8))
def test_a_lead_that_learns_value_by_value_stands_where_a_fresh_fold_puts_it(told: list[tuple[Scalar, int]]) -> None:
    (flagged,) = cards_of(parse(FLAGGED))
    lead = Lead(ANNA, 1, None, {}, history=[])
    fold_anew(lead, [flagged], 1)
    for place, (flag, hours) in enumerate(told):
        one = activity("told", NOON + timedelta(hours=hours), id=f"a{place}", attributes={"flag": flag})
        apply(lead, one)
        fresh = read(
            flagged, fold(flagged, lead.history or ()), believed(lead.history or []), lead.last_received_at or NOON
        )
        assert read_lead(lead, lead.standings[0]) == fresh


def test_decay_halves_exactly_and_ends() -> None:
    table = decay_table(timedelta(days=14), 3650)
    assert (table[0], table[14], table[28]) == (ONE, ONE // 2, ONE // 4)
    assert table[-1] == 0
    assert sorted(table, reverse=True) == list(table)


@given(st.integers(1, 3650 * 86_400), st.integers(0, 36_600))
@settings(max_examples=20)
def test_decay_is_the_power_of_two_that_it_stands_for_to_the_last_digit(half_life_seconds: int, days: int) -> None:
    table = decay_table(timedelta(seconds=half_life_seconds), days)
    for age in {0, len(table) // 2, len(table) - 1}:
        exact = PRECISE.power(Decimal(2), PRECISE.divide(Decimal(-age * 86_400), Decimal(half_life_seconds)))
        assert table[age] == PRECISE.multiply(exact, Decimal(ONE)).to_integral_value()
    assert len(table) <= days + 1


def test_the_slowest_decay_over_the_longest_lookback_is_made_in_no_time() -> None:
    started = time.process_time()
    assert len(decay_table(timedelta(days=3650), 36_600)) == 36_601
    assert time.process_time() - started < 0.05
