"""Working time: deadline and elapsed, computed from one thing, the open spans of a calendar.

An instant is open when the clock on the wall of the calendar's zone shows a time inside one of the weekday's intervals
and the day is no holiday. So an hour that a clock change skips is no working time, and one that it repeats counts
twice. Intervals are half-open; instants go in and out as aware UTC; results are exact to the microsecond.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import holidays as holiday_data

HORIZON = timedelta(days=5 * 366)  # a calendar closed for longer never opens again, as far as anybody can plan
FARTHEST_OFFSET = timedelta(hours=26)  # more than any zone is off UTC
DAY = timedelta(days=1)
DAY_SECONDS = 86_400
RESOLUTION = timedelta(seconds=1)  # of clock changes

Interval = tuple[int, int]  # seconds since local midnight, [start, end)
Span = tuple[datetime, datetime]  # UTC, [start, end)


class NeverOpen(ValueError):
    """The calendar has no open hour, or none within the horizon."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """When a team works. `week`: the intervals of each weekday from Monday, sorted and disjoint.

    Holidays: the public ones of countries (ISO 3166 codes) and dates of one's own.
    """

    zone: ZoneInfo
    week: tuple[tuple[Interval, ...], ...]
    countries: tuple[str, ...] = ()
    dates: frozenset[date] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        if len(self.week) != 7:
            raise ValueError(f"a week has 7 days, not {len(self.week)}")
        for intervals in self.week:
            edges = [0, *(edge for interval in intervals for edge in interval), DAY_SECONDS]
            if edges != sorted(edges) or any(start == end for start, end in intervals):
                raise ValueError(f"intervals {intervals} are not sorted, disjoint and within a day")
        if not self.week_seconds:
            raise NeverOpen("the calendar has no open hour")

    @property
    def week_seconds(self) -> int:
        """Working time in a week without holidays or clock changes."""
        return sum(end - start for intervals in self.week for start, end in intervals)

    @property
    def day_seconds(self) -> float:
        """Working time on the average open weekday."""
        return self.week_seconds / sum(1 for intervals in self.week if intervals)

    def is_holiday(self, day: date) -> bool:
        return day in self.dates or any(day in _public_holidays(country, day.year) for country in self.countries)


def deadline(calendar: Calendar, start: datetime, seconds: float) -> datetime:
    """The first instant by which `seconds` of working time have passed since `start`. Raises `NeverOpen`.

    The end of an interval belongs to it: eight hours from nine, in a day of eight hours, are due that evening.
    """
    start, left = _utc(start), timedelta(seconds=seconds)
    if left < timedelta(0):
        raise ValueError(f"a deadline lies ahead: {seconds} seconds")
    if not left:
        return start
    for opened, closed in _spans(calendar, start):
        since = max(opened, start)
        if closed - since >= left:
            return since + left
        left -= max(closed - since, timedelta(0))
    raise AssertionError("spans end only by raising")


def elapsed(calendar: Calendar, start: datetime, end: datetime) -> float:
    """Seconds of working time from `start` to `end`, negative if `end` comes first."""
    start, end = _utc(start), _utc(end)
    if end < start:
        return -elapsed(calendar, end, start)
    total = timedelta(0)
    day = _first_day(calendar, start)
    last = end.astimezone(calendar.zone).date() + DAY
    while day <= last:
        for opened, closed in _open_spans(calendar, day):
            total += max(min(closed, end) - max(opened, start), timedelta(0))
        day += DAY
    return total.total_seconds()


def is_open(calendar: Calendar, instant: datetime) -> bool:
    """Whether the instant is working time."""
    local = _utc(instant).astimezone(calendar.zone)
    second = local.hour * 3600 + local.minute * 60 + local.second
    intervals = calendar.week[local.weekday()]
    return any(start <= second < end for start, end in intervals) and not calendar.is_holiday(local.date())


def _spans(calendar: Calendar, start: datetime) -> Iterator[Span]:
    """The open spans that end after `start`, in order, for ever. Raises `NeverOpen` after a horizon of closed days."""
    day = _first_day(calendar, start)
    last_open = day
    while day - last_open <= HORIZON:
        for span in _open_spans(calendar, day):
            if span[1] > start:
                last_open = day
                yield span
        day += DAY
    raise NeverOpen(f"no open hour in the {HORIZON.days} days after {last_open}")


def _first_day(calendar: Calendar, start: datetime) -> date:
    return start.astimezone(calendar.zone).date() - DAY  # a clock set back over midnight repeats the day before


@lru_cache(maxsize=8192)
def _open_spans(calendar: Calendar, day: date) -> tuple[Span, ...]:
    """The open spans of one local day, in order."""
    intervals = calendar.week[day.weekday()]
    if not intervals or calendar.is_holiday(day):
        return ()
    midnight = datetime.combine(day, time(), UTC)  # the wall clock read as if it were UTC
    spans = []
    for since, until, offset in _offsets(calendar.zone, midnight - FARTHEST_OFFSET, midnight + DAY + FARTHEST_OFFSET):
        for start, end in intervals:
            opened = max(midnight + timedelta(seconds=start) - offset, since)
            closed = min(midnight + timedelta(seconds=end) - offset, until)
            if opened < closed:
                spans.append((opened, closed))
    return tuple(spans)


def _offsets(zone: ZoneInfo, since: datetime, until: datetime) -> list[tuple[datetime, datetime, timedelta]]:
    """The offsets from UTC that hold between two instants, each with its span. At most one clock change is expected."""
    before, after = _offset(zone, since), _offset(zone, until)
    if before == after:
        return [(since, until, before)]
    change = _change(zone, since, until)
    return [(since, change, before), (change, until, after)]


def _change(zone: ZoneInfo, low: datetime, high: datetime) -> datetime:
    before = _offset(zone, low)
    while high - low > RESOLUTION:
        middle = low + timedelta(seconds=(high - low) // RESOLUTION // 2)
        low, high = (middle, high) if _offset(zone, middle) == before else (low, middle)
    return high


def _offset(zone: ZoneInfo, instant: datetime) -> timedelta:
    offset = instant.astimezone(zone).utcoffset()
    assert offset is not None, "a ZoneInfo always has an offset"
    return offset


@lru_cache(maxsize=1024)
def _public_holidays(country: str, year: int) -> frozenset[date]:
    return frozenset(holiday_data.country_holidays(country, years=year))


def _utc(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise ValueError(f"{instant} has no zone")
    return instant.astimezone(UTC)
