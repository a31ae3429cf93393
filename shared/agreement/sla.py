"""The clocks: calendars of working time, and what must happen within how much of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from functools import cached_property
from typing import Annotated, ClassVar, Literal, Self
from zoneinfo import ZoneInfo

import holidays as holiday_data
from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, model_validator

from shared.agreement.durations import ExactDuration
from shared.agreement.flaws import Fault, refuse, shown, unknown
from shared.agreement.parts import Choice, Choices, Listed, Named, Part, Slug, ZoneName, postponed
from shared.worktime import DAY_SECONDS, Calendar, Interval

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MILESTONES = ("accept", "first_touch", "next_step")  # in the order in which they come

_TIMES = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)", re.ASCII)
_PERCENT = re.compile(r"[1-9]\d?%", re.ASCII)
_REGION = re.compile(r"[A-Z]{2}-[A-Z0-9]{1,3}", re.ASCII)

Week = tuple[tuple[Interval, ...], ...]
MilestoneName = Literal["accept", "first_touch", "next_step"]
Breach = Literal["notify_manager", "reassign"]


def _week(raw: object) -> Week:
    """`{mon-fri: ["09:00-12:30", "13:30-18:00"], sat: [...]}` as the intervals of each weekday."""
    if not isinstance(raw, dict) or not raw:
        refuse([Fault((), f'{shown(raw)}: expected hours, such as {{mon-fri: ["09:00-17:00"]}}')])
    week: list[tuple[Interval, ...]] = [()] * 7
    faults: list[Fault] = []
    for name, times in raw.items():
        days, intervals = _days(name, faults), _intervals(name, times, faults)
        for day in days:
            if week[day]:
                faults.append(Fault((name,), f"{DAYS[day]} has hours already"))
            week[day] = intervals
    if not any(week) and not faults:
        faults.append(Fault((), "the calendar has no open hour"))
    if faults:
        refuse(faults)
    return tuple(week)


def _days(name: str, faults: list[Fault]) -> range:
    first, _, last = name.partition("-")
    bad = [day for day in (first, last or first) if day not in DAYS]
    if bad:
        faults.append(Fault((name,), unknown("weekday", bad[0], DAYS)))
        return range(0)
    days = range(DAYS.index(first), DAYS.index(last or first) + 1)
    if not days:
        faults.append(Fault((name,), f"{shown(name)} ends before it starts (weeks start on mon)"))
    return days


def _intervals(name: str, times: object, faults: list[Fault]) -> tuple[Interval, ...]:
    if not isinstance(times, tuple):
        faults.append(Fault((name,), f'{shown(times)}: expected a list of intervals, such as ["09:00-17:00"]'))
        return ()
    intervals: list[Interval] = []
    for place, text in enumerate(times):
        found = _TIMES.fullmatch(text) if isinstance(text, str) else None
        start, end = _seconds(found) if found else (0, 0)
        if found is None or end > DAY_SECONDS:
            faults.append(Fault((name, place), f"{shown(text)}: expected HH:MM-HH:MM, at most 24:00"))
        elif start >= end:
            hint = "over midnight it is two: until 24:00, and from 00:00 the next day"
            faults.append(Fault((name, place), f"{shown(text)} ends before it starts ({hint})"))
        elif intervals and start < intervals[-1][1]:
            faults.append(Fault((name, place), f"{shown(text)} overlaps or comes before the interval before it"))
        else:
            intervals.append((start, end))
    return tuple(intervals)


def _seconds(found: re.Match[str]) -> Interval:
    start_hour, start_minute, end_hour, end_minute = map(int, found.groups())
    return start_hour * 3600 + start_minute * 60, end_hour * 3600 + end_minute * 60


def _holidays(raw: object) -> tuple[str | date, ...]:
    """A country's code, or a list of codes and dates."""
    entries = raw if isinstance(raw, tuple) else (raw,)
    faults: list[Fault] = []
    found = [_holiday(entry, (place,) if isinstance(raw, tuple) else (), faults) for place, entry in enumerate(entries)]
    if faults:
        refuse(faults)
    return tuple(holiday for holiday in found if holiday is not None)


def _holiday(entry: object, steps: tuple[int, ...], faults: list[Fault]) -> str | date | None:
    if isinstance(entry, str) and entry in holiday_data.list_supported_countries():
        return entry
    if isinstance(entry, str) and _REGION.fullmatch(entry):
        faults.append(Fault(steps, f"{shown(entry)}: holidays of regions are not supported yet"))
        return None
    try:
        return date.fromisoformat(entry if isinstance(entry, str) else "")
    except ValueError:
        faults.append(Fault(steps, f"{shown(entry)}: expected a country's ISO code (US) or a date (2026-12-24)"))
        return None


def _percent(raw: object) -> int:
    if not isinstance(raw, str) or not _PERCENT.fullmatch(raw):
        raise ValueError("expected a percentage from 1% to 99%")
    return int(raw[:-1])


def _ascending(percents: tuple[int, ...]) -> tuple[int, ...]:
    if list(percents) != sorted(set(percents)):
        raise ValueError("expected percentages in rising order, each once")
    return percents


class WorkCalendar(Part):
    """When a team works. `holidays`: a country's code, or codes and dates."""

    later: ClassVar = frozenset({"leaves", "exceptions", "half_days", "basis"})
    id: Slug
    timezone: ZoneName
    hours: Annotated[Week, PlainValidator(_week)]
    holidays: Annotated[tuple[str | date, ...], PlainValidator(_holidays)] = ()

    @cached_property
    def working(self) -> Calendar:
        """The calendar as `shared.worktime` computes with it."""
        return Calendar(
            zone=ZoneInfo(self.timezone),
            week=self.hours,
            countries=tuple(entry for entry in self.holidays if isinstance(entry, str)),
            dates=frozenset(entry for entry in self.holidays if isinstance(entry, date)),
        )


class Milestone(Part):
    """What must happen `within` so much working time, from the assignment, the MQL, or the milestone before."""

    id: MilestoneName
    within: ExactDuration
    since: Annotated[
        Literal["assigned", "mql", "previous"], BeforeValidator(postponed("start", "raised_hand")), Field(alias="from")
    ]


def _in_order(milestones: tuple[Milestone, ...]) -> tuple[Milestone, ...]:
    ordered = tuple(sorted(milestones, key=lambda milestone: MILESTONES.index(milestone.id)))
    if ordered and ordered[0].since == "previous":
        place = milestones.index(ordered[0])
        refuse([Fault((place, "from"), "`previous`: no milestone comes before this one")])
    return ordered


class Policy(Choice):
    """The clocks of a handoff. Without an `id` it is known by its place: `policy-1`, and the last as `otherwise`."""

    later: ClassVar = frozenset({"cadence", "attempts", "pause", "ladder", "back_off", "shadow"})
    calendar: str
    milestones: Annotated[Named[Milestone], AfterValidator(_in_order)]
    warn_at: Annotated[tuple[Annotated[int, PlainValidator(_percent)], ...], AfterValidator(_ascending)] = ()
    on_breach: tuple[
        Annotated[Breach, BeforeValidator(postponed("measure", "remind_rep", "take_offline", "last_resort"))], ...
    ] = ()
    max_reassigns: int = Field(default=0, ge=0, le=100)

    def milestone(self, name: str) -> Milestone | None:
        return next((milestone for milestone in self.milestones if milestone.id == name), None)

    @model_validator(mode="after")
    def _reassigns_so_often(self) -> Self:
        if ("reassign" in self.on_breach) != (self.max_reassigns > 0):
            refuse([Fault(("max_reassigns",), "at least 1 belongs with `reassign` in `on_breach`, and only there")])
        if len(set(self.on_breach)) != len(self.on_breach):
            refuse([Fault(("on_breach",), "a measure stands twice")])
        return self


class Sla(Part):
    later: ClassVar = frozenset({"marketing", "obligations"})
    calendars: Listed[WorkCalendar]
    policies: Choices[Policy]

    @model_validator(mode="after")
    def _calendars_exist(self) -> Self:
        if faults := list(self._missing_calendars()):
            refuse(faults)
        return self

    def _missing_calendars(self) -> Iterator[Fault]:
        known = [calendar.id for calendar in self.calendars]
        for place, policy in enumerate(self.policies):
            if policy.calendar not in known:
                yield Fault(("policies", place, "calendar"), unknown("calendar", policy.calendar, known))
