"""A lead is an MQL once a cycle, whatever the batches (law 5)."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.scoring.lead import Lead, apply, fold_anew, judge_once
from services.scoring.qualify import Cycle, Mql, current_cycle, judge, mql_id
from services.scoring.score import Fact, fold, read
from shared.events import ActivityRecorded
from tests.scoring.leads import ANNA, BERT, NOON, a_good_company, activity, card, lives, pricing

DAY = timedelta(days=1)


def lead(*, mqls: list[Mql] | None = None, history: list[ActivityRecorded] | None = None) -> Lead:
    """A lead under the sample agreement, as it is loaded."""
    last = max((one.received_at for one in history or ()), default=None)
    found = Lead(ANNA, 1, last, {}, mqls=list(mqls or ()), history=list(history or ()))
    fold_anew(found, [card()], 1)
    return found


def mql(cycle: int = 1, ended_at: datetime | None = None, *, made_for: str = ANNA, gave_way: bool = False) -> Mql:
    name = mql_id(made_for, "robots", "new_business", cycle)
    return Mql(name, made_for, "robots", "new_business", cycle, ended_at, gave_way)


def qualified(found: Lead, activities: list[ActivityRecorded]) -> list[str]:
    """The activities at which the lead crossed."""
    return [one.activity_id for one in activities for _ in apply(found, one)]


@given(lives(), st.integers(0, 25))
def test_where_the_log_is_cut_does_not_change_who_became_an_mql(life: list[ActivityRecorded], cut: int) -> None:
    whole = lead()
    crossed = qualified(whole, life)
    first = lead()
    parts = qualified(first, life[:cut])
    second = lead(mqls=first.mqls, history=life[:cut])
    second.facts, second.last_received_at = first.facts, first.last_received_at
    assert parts + qualified(second, life[cut:]) == crossed
    assert [one.mql_id for one in second.mqls] == [one.mql_id for one in whole.mqls]


@given(lives())
def test_a_lead_kept_up_to_date_equals_one_folded_anew(life: list[ActivityRecorded]) -> None:
    kept = lead()
    qualified(kept, life)
    assert kept.standings[0].tally == fold(card(), life)


def test_three_pricing_pages_and_a_webinar_of_a_good_company_cross() -> None:
    webinar = activity("webinar_attended", NOON + timedelta(hours=1), id="webinar")
    life = [a_good_company(), *[pricing(n) for n in range(3)], webinar]
    found = lead()
    assert qualified(found, life) == ["webinar"]
    assert found.standings[0].cycle == Cycle(1, None, is_open=True)
    assert qualified(found, [activity("demo_requested", NOON + DAY)]) == []


def test_a_raised_hand_waits_for_no_points() -> None:
    (crossing,) = apply(lead(), activity("demo_requested"))
    assert crossing.qualification.raised_hand is not None
    assert crossing.reading.score == 0


def test_last_years_demo_request_scores_but_qualifies_nobody() -> None:
    old = activity("demo_requested", NOON - 400 * DAY, received_at=NOON)
    found = lead()
    assert qualified(found, [old, pricing(5)]) == []
    told_to = activity("demo_requested", NOON - 399 * DAY, received_at=NOON, qualify_any_age=True)
    assert qualified(found, [told_to]) == [told_to.activity_id]


def test_an_import_that_crosses_the_threshold_waits_for_a_sign_of_life() -> None:
    imported = [
        activity("webinar_attended", NOON - 3 * DAY, id=f"{n}", received_at=NOON, attributes={"company_size": 900})
        for n in range(2)
    ] + [activity(at=NOON - 3 * DAY, id=f"p{n}", received_at=NOON, properties={"path": "/pricing"}) for n in range(3)]
    found = lead()
    assert qualified(found, imported) == []
    assert qualified(found, [activity("unknown", NOON, id="alive")]) == ["alive"]


def test_a_recycled_lead_qualifies_at_once_by_a_raised_hand_that_came_after_the_end() -> None:
    ended = NOON + DAY
    asked = activity("demo_requested", NOON, id="before")
    found = lead(mqls=[mql(1, ended)], history=[asked])
    assert qualified(found, [pricing(60 * 48)]) == []
    assert qualified(found, [activity("demo_requested", NOON + 2 * DAY, id="again")]) == ["again"]
    assert found.mqls[-1].mql_id == mql_id(ANNA, "robots", "new_business", 2)


def test_a_recycled_lead_needs_twenty_new_points_or_thirty_days() -> None:
    history = (
        [a_good_company()]
        + [activity("webinar_attended", NOON + timedelta(minutes=n), id=f"w{n}") for n in range(2)]
        + [pricing(n) for n in range(3)]
    )
    ended = NOON + timedelta(hours=1)
    recycled = lead(mqls=[mql(1, ended)], history=history)
    recycled.facts["company_size"] = Fact(500, 0, "x")
    clicks = [activity("email_clicked", ended + timedelta(minutes=n), id=f"click{n}") for n in range(1, 8)]
    assert qualified(recycled, clicks) == ["click7"]  # 7 * 3.33 = 23.31


def test_a_demo_requested_after_the_rejection_but_folded_before_it_was_known_counts_in_the_next_cycle() -> None:
    rejected = NOON + timedelta(hours=1)
    asked = [activity("demo_requested", NOON, id="first"), activity("demo_requested", NOON + 2 * DAY, id="second")]
    open_lead = lead()
    assert qualified(open_lead, asked) == ["first"]
    told = lead(mqls=[mql(1, rejected)], history=asked)
    ((crossing, first),) = judge_once(told)
    assert (crossing.mql.cycle, first.activity_id) == (2, "second")
    assert judge_once(told) == []


def test_time_alone_makes_no_mql() -> None:
    found = lead(mqls=[mql(1, NOON + DAY)], history=[activity("demo_requested", NOON)])
    assert judge_once(found) == []


def test_the_cycle_of_merged_leads_is_the_greater_and_stays_open_while_either_is() -> None:
    assert current_cycle([], "robots", "new_business") == Cycle(1, None, is_open=False)
    assert current_cycle([mql(1, NOON), mql(1, made_for=BERT)], "robots", "new_business") == Cycle(
        2, NOON, is_open=True
    )
    both = [mql(1, NOON), mql(1, NOON + DAY, made_for=BERT)]
    assert current_cycle(both, "robots", "new_business") == Cycle(2, NOON + DAY, is_open=False)
    gave_way = [mql(3, gave_way=True), mql(1, NOON, made_for=BERT)]
    assert current_cycle(gave_way, "robots", "new_business") == Cycle(4, NOON, is_open=False)
    assert current_cycle([mql(1)], "sensors", "new_business").number == 1


def test_a_lead_whose_mql_is_open_is_not_judged() -> None:
    tally = fold(card(), [activity("demo_requested")])
    reading = read(card(), tally, {}, NOON)
    assert judge(card(), tally, reading, Cycle(1, None, is_open=True), NOON) is None
    assert judge(card(), tally, reading, Cycle(1, None, is_open=False), NOON) is not None
