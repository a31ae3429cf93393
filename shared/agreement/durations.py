"""ISO 8601 durations: `PT5M`, `P2D`, `P1W`, `P3M`.

Days, weeks and times of day are exact lengths. Months and years are not, so only `review_every`, a rhythm of the
calendar, may use them. In an SLA, `P1D` is a working day and `P1W` a working week of the policy's calendar (24 hours a
day in one that never closes), while `PT24H` is always 24 working hours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, PlainValidator

from shared.worktime import Calendar

DAY_SECONDS = 86_400
LONGEST_SECONDS = 100 * 366 * DAY_SECONDS
LONGEST_HALF_LIFE_SECONDS = 3650 * DAY_SECONDS
_FORM = re.compile(
    r"P(?:(\d{1,4})Y)?(?:(\d{1,4})M)?(?:(\d{1,4})W)?(?:(\d{1,5})D)?"
    r"(?:T(?=\d)(?:(\d{1,6})H)?(?:(\d{1,8})M)?(?:(\d{1,10})S)?)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of time as it was written. `months` holds years too; `seconds` hours and minutes."""

    months: int = 0
    weeks: int = 0
    days: int = 0
    seconds: int = 0
    text: str = ""

    def __str__(self) -> str:
        return self.text

    @property
    def timedelta(self) -> timedelta:
        """The exact length. Raises `ValueError` for months and years, which have none."""
        if self.months:
            raise ValueError(f"`{self.text}` has months or years, which have no exact length")
        return timedelta(weeks=self.weeks, days=self.days, seconds=self.seconds)

    def working_seconds(self, calendar: Calendar) -> float:
        """How much working time it is: its days and weeks are those of the calendar."""
        if self.months:
            raise ValueError(f"`{self.text}` has months or years, which have no exact length")
        return self.weeks * calendar.week_seconds + self.days * calendar.day_seconds + self.seconds


def duration(text: object) -> Duration:
    """The duration of a text. Raises `ValueError` with what would be right."""
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    if not isinstance(text, str) or found is None or text == "P":
        raise ValueError(f"expected an ISO 8601 duration such as PT5M, P2D or P3M{_hint(text)}")
    years, months, weeks, days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return Duration(years * 12 + months, weeks, days, hours * 3600 + minutes * 60 + seconds, text)


def _hint(text: object) -> str:
    if isinstance(text, str) and re.fullmatch(r"P(\d+[HMS])+", text):
        return f"; did you mean `PT{text[1:]}`?"
    return ""


def _exact(value: Duration) -> Duration:
    if value.months:
        raise ValueError("months and years have no exact length here; write days (P90D)")
    seconds = value.timedelta.total_seconds()
    if not 0 < seconds <= LONGEST_SECONDS:
        raise ValueError("expected more than nothing, and at most 100 years")
    return value


def _half_life(value: Duration) -> Duration:
    if value.timedelta.total_seconds() > LONGEST_HALF_LIFE_SECONDS:
        raise ValueError("at most 3,650 days: points that fade more slowly had better not fade")
    return value


def _rhythm(value: Duration) -> Duration:
    if not (value.months or value.timedelta) or value.months > 1200:
        raise ValueError("expected more than nothing, and at most 100 years")
    return value


ExactDuration = Annotated[Duration, PlainValidator(duration), AfterValidator(_exact)]
HalfLife = Annotated[ExactDuration, AfterValidator(_half_life)]
Rhythm = Annotated[Duration, PlainValidator(duration), AfterValidator(_rhythm)]
