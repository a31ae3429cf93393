"""Working time against a table computed by hand, an implementation that steps through every minute, and its algebra."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.worktime import Calendar, Interval, NeverOpen, deadline, elapsed, is_open

HOUR = 3600
NEW_YORK = ZoneInfo("America/New_York")
NINE_TO_FIVE: Interval = (9 * HOUR, 17 * HOUR)
ALWAYS: Interval = (0, 24 * HOUR)


def weekdays(*intervals: Interval, zone: ZoneInfo = NEW_YORK) -> Calendar:
    return Calendar(zone, (intervals,) * 5 + ((),) * 2)


def every_day(*intervals: Interval, zone: ZoneInfo = NEW_YORK) -> Calendar:
    return Calendar(zone, (intervals,) * 7)


def local(text: str, zone: ZoneInfo = NEW_YORK) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone)


OFFICE = weekdays(NINE_TO_FIVE)
LUNCH = weekdays((9 * HOUR, 12 * HOUR + 1800), (13 * HOUR + 1800, 18 * HOUR))
NIGHT = every_day((0, 6 * HOUR), (22 * HOUR, 24 * HOUR))
HOLIDAYS = Calendar(NEW_YORK, OFFICE.week, countries=("US",), dates=frozenset({date(2026, 12, 24)}))

DEADLINES = {
    "a lead that arrives on Saturday is due on Monday": (OFFICE, "2026-11-21T18:00", HOUR, "2026-11-23T10:00"),
    "what fits into today is due today": (OFFICE, "2026-11-20T10:00", HOUR, "2026-11-20T11:00"),
    "a whole day is due that evening, not next morning": (OFFICE, "2026-11-20T09:00", 8 * HOUR, "2026-11-20T17:00"),
    "before opening the clock waits": (OFFICE, "2026-11-20T03:00", 60, "2026-11-20T09:01"),
    "after closing on Friday the clock waits for Monday": (OFFICE, "2026-11-20T17:00", 1, "2026-11-23T09:00:01"),
    "lunch is no working time": (LUNCH, "2026-11-20T12:00", HOUR, "2026-11-20T14:00"),
    "two working days cross the weekend": (LUNCH, "2026-11-20T10:00", 16 * HOUR, "2026-11-24T10:00"),
    "29 February is a day like others": (OFFICE, "2028-02-28T16:00", 2 * HOUR, "2028-02-29T10:00"),
    "there is no 29 February in 2027": (OFFICE, "2027-02-26T16:00", 2 * HOUR, "2027-03-01T10:00"),
    "a holiday is closed, on the day it is observed": (HOLIDAYS, "2026-07-02T16:00", 2 * HOUR, "2026-07-06T10:00"),
    "a date of one's own is closed, and so is Christmas": (HOLIDAYS, "2026-12-23T16:00", 2 * HOUR, "2026-12-28T10:00"),
    "the night of spring has an hour less": (NIGHT, "2026-03-07T22:00", 7 * HOUR, "2026-03-08T06:00"),
    "the night of autumn has an hour more": (NIGHT, "2026-10-31T22:00", 9 * HOUR, "2026-11-01T06:00"),
    "a day of spring has 23 hours": (every_day(ALWAYS), "2026-03-08T00:00", 23 * HOUR, "2026-03-09T00:00"),
    "a day of autumn has 25 hours": (every_day(ALWAYS), "2026-11-01T00:00", 25 * HOUR, "2026-11-02T00:00"),
    "a clock change at night moves no office hour": (OFFICE, "2026-03-06T16:00", 2 * HOUR, "2026-03-09T10:00"),
}


@pytest.mark.parametrize(("calendar", "start", "seconds", "due"), DEADLINES.values(), ids=DEADLINES.keys())
def test_deadlines_computed_by_hand(calendar: Calendar, start: str, seconds: float, due: str) -> None:
    found = deadline(calendar, local(start), seconds)
    assert found == local(due)
    assert found.tzinfo is UTC
    assert elapsed(calendar, local(start), found) == seconds


def test_an_hour_that_the_clock_skips_is_no_working_time() -> None:
    calendar = every_day((2 * HOUR + 900, 2 * HOUR + 2700))
    assert elapsed(calendar, local("2026-03-08T00:00"), local("2026-03-09T00:00")) == 0
    assert deadline(calendar, local("2026-03-08T00:00"), 60) == local("2026-03-09T02:16")


def test_an_hour_that_the_clock_repeats_counts_twice() -> None:
    calendar = every_day((HOUR + 900, HOUR + 2700))
    first, second = datetime(2026, 11, 1, 5, 15, tzinfo=UTC), datetime(2026, 11, 1, 6, 15, tzinfo=UTC)
    assert deadline(calendar, first, 1800) == first + timedelta(minutes=30)
    assert deadline(calendar, first, 1801) == second + timedelta(seconds=1)
    assert elapsed(calendar, local("2026-11-01T00:00"), local("2026-11-02T00:00")) == HOUR


def test_a_clock_set_back_over_midnight_repeats_the_end_of_the_day_before() -> None:
    havana = ZoneInfo("America/Havana")  # 2026-11-01: at 01:00 it is 00:00 again
    calendar = every_day((0, HOUR), zone=havana)
    assert elapsed(calendar, local("2026-11-01T00:00", havana), local("2026-11-02T00:00", havana)) == 2 * HOUR


def test_a_day_that_a_zone_left_out_is_no_working_day() -> None:
    apia = ZoneInfo("Pacific/Apia")  # went from 29 to 31 December 2011, over the date line
    calendar = every_day(NINE_TO_FIVE, zone=apia)
    assert deadline(calendar, local("2011-12-29T16:00", apia), 2 * HOUR) == local("2011-12-31T10:00", apia)


def test_a_calendar_that_never_closes_runs_on_the_wall_clock() -> None:
    start = local("2026-10-30T12:34:56.789012")
    assert deadline(every_day(ALWAYS), start, 10**6) - start == timedelta(seconds=10**6)


def test_time_that_runs_backwards_is_negative() -> None:
    start, end = local("2026-11-20T10:00"), local("2026-11-20T11:30")
    assert elapsed(OFFICE, end, start) == -elapsed(OFFICE, start, end) == -5400


def test_a_calendar_without_an_open_hour_is_refused() -> None:
    with pytest.raises(NeverOpen, match="no open hour"):
        Calendar(NEW_YORK, ((),) * 7)


def test_a_calendar_that_holidays_close_for_years_has_no_deadline() -> None:
    closed = frozenset(date(2026, 1, 1) + timedelta(days=number) for number in range(6 * 366))
    with pytest.raises(NeverOpen, match="no open hour in the 1830 days"):
        deadline(Calendar(NEW_YORK, OFFICE.week, dates=closed), local("2026-01-01T00:00"), 1)


@pytest.mark.parametrize(
    "intervals", [((5, 5),), ((5, 4),), ((0, 10), (9, 20)), ((10, 20), (0, 5)), ((0, 24 * HOUR + 1),), ((-1, 5),)]
)
def test_intervals_that_are_no_part_of_a_day_are_refused(intervals: tuple[Interval, ...]) -> None:
    with pytest.raises(ValueError, match="not sorted, disjoint"):
        every_day(*intervals)


def test_a_time_without_a_zone_is_refused() -> None:
    naive = local("2026-11-20T10:00").replace(tzinfo=None)
    with pytest.raises(ValueError, match="no zone"):
        deadline(OFFICE, naive, 1)
    with pytest.raises(ValueError, match="no zone"):
        elapsed(OFFICE, naive, local("2026-11-20T10:00"))


def test_a_deadline_does_not_lie_behind() -> None:
    with pytest.raises(ValueError, match="lies ahead"):
        deadline(OFFICE, local("2026-11-20T10:00"), -1)


# Properties

ZONES = ("America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata", "America/Havana", "Africa/Cairo")
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
CLOCK_CHANGES = [  # the weeks in which most zones above change their clocks
    datetime(2026, 3, 6, tzinfo=UTC),
    datetime(2026, 3, 28, tzinfo=UTC),
    datetime(2026, 4, 4, tzinfo=UTC),
    datetime(2026, 10, 3, tzinfo=UTC),
    datetime(2026, 10, 24, tzinfo=UTC),
    datetime(2026, 10, 31, tzinfo=UTC),
]


@st.composite
def intervals_of_a_day(draw: st.DrawFn) -> tuple[Interval, ...]:
    edges = sorted(draw(st.sets(st.integers(0, 24 * 60), max_size=6)))
    return tuple((start * 60, end * 60) for start, end in zip(edges[::2], edges[1::2], strict=False))


@st.composite
def calendars(draw: st.DrawFn) -> Calendar:
    week = draw(st.tuples(*[intervals_of_a_day()] * 7).filter(any))
    holidays = draw(st.frozensets(st.dates(date(2026, 1, 1), date(2026, 12, 31)), max_size=20))
    return Calendar(ZoneInfo(draw(st.sampled_from(ZONES))), week, dates=holidays)


instants = st.one_of(
    st.builds(lambda minutes: EPOCH + timedelta(minutes=minutes), st.integers(0, 525_600)),
    st.builds(
        lambda week, minutes: week + timedelta(minutes=minutes),
        st.sampled_from(CLOCK_CHANGES),
        st.integers(0, 3 * 24 * 60),
    ),
)
precise_instants = st.builds(
    lambda instant, micros: instant + timedelta(microseconds=micros), instants, st.integers(0, 86_400 * 10**6)
)
lengths = st.integers(1, 300 * HOUR * 10**6).map(lambda micros: micros / 10**6)


def minutes_open(calendar: Calendar, start: datetime, minutes: int) -> list[bool]:
    """The independent implementation: ask the clock on the wall, minute by minute."""
    opened = []
    for number in range(minutes):
        wall = (start + timedelta(minutes=number)).astimezone(calendar.zone)
        second = wall.hour * HOUR + wall.minute * 60
        opened.append(
            wall.date() not in calendar.dates
            and any(since <= second < until for since, until in calendar.week[wall.weekday()])
        )
    return opened


@given(calendars(), instants, st.integers(1, 5 * 24 * 60))
@settings(max_examples=60, deadline=None)
@example(every_day((0, HOUR), zone=ZoneInfo("America/Havana")), datetime(2026, 11, 1, 3, tzinfo=UTC), 240)
@example(every_day((HOUR, 2 * HOUR), zone=ZoneInfo("Australia/Lord_Howe")), datetime(2026, 4, 4, tzinfo=UTC), 2880)
def test_elapsed_and_deadline_agree_with_stepping_through_every_minute(
    calendar: Calendar, start: datetime, minutes: int
) -> None:
    opened = minutes_open(calendar, start, minutes)
    assert elapsed(calendar, start, start + timedelta(minutes=minutes)) == 60 * sum(opened)
    assert is_open(calendar, start) == opened[0]
    for wanted in {1, sum(opened) // 2, sum(opened)} - {0}:
        if wanted <= sum(opened):
            last = [number for number, is_working in enumerate(opened) if is_working][wanted - 1]
            assert deadline(calendar, start, 60 * wanted) == start + timedelta(minutes=last + 1)


@given(calendars(), precise_instants, lengths)
@settings(deadline=None)
def test_deadline_and_elapsed_invert_each_other(calendar: Calendar, start: datetime, seconds: float) -> None:
    assert elapsed(calendar, start, deadline(calendar, start, seconds)) == seconds


@given(calendars(), precise_instants, precise_instants)
@settings(deadline=None)
def test_what_has_elapsed_was_due_by_then(calendar: Calendar, start: datetime, end: datetime) -> None:
    start, end = sorted((start, end))
    assert deadline(calendar, start, elapsed(calendar, start, end)) <= end


@given(calendars(), precise_instants, precise_instants, precise_instants)
@settings(deadline=None)
def test_elapsed_adds_up(calendar: Calendar, one: datetime, two: datetime, three: datetime) -> None:
    total = elapsed(calendar, one, two) + elapsed(calendar, two, three)
    assert elapsed(calendar, one, three) == pytest.approx(total, abs=1e-6)


@given(calendars(), precise_instants, lengths, lengths)
@settings(deadline=None)
def test_deadlines_add_up(calendar: Calendar, start: datetime, first: float, second: float) -> None:
    total = (round(first * 10**6) + round(second * 10**6)) / 10**6
    assert deadline(calendar, start, total) == deadline(calendar, deadline(calendar, start, first), second)


@given(calendars(), precise_instants, precise_instants, lengths, lengths)
@settings(deadline=None)
def test_who_starts_later_or_gets_longer_is_due_no_earlier(
    calendar: Calendar, one: datetime, two: datetime, short: float, long: float
) -> None:
    earlier, later = sorted((one, two))
    short, long = sorted((short, long))
    assert deadline(calendar, earlier, short) <= deadline(calendar, later, short) <= deadline(calendar, later, long)
