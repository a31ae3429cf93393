"""Durations as an agreement writes them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shared.agreement.durations import duration


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("PT3S", timedelta(seconds=3)),
        ("PT5M", timedelta(minutes=5)),
        ("P1DT12H30M", timedelta(days=1, hours=12, minutes=30)),
        ("P2W", timedelta(weeks=2)),
        ("P365D", timedelta(days=365)),
    ],
)
def test_days_and_times_are_exact_lengths(text: str, length: timedelta) -> None:
    assert duration(text).timedelta == length
    assert str(duration(text)) == text


@pytest.mark.parametrize("text", ["", "P", "PT", "5M", "P5H", "P1DT", "-P1D", "P1.5D", "p1d", "P1D ", "PT5m", "P٣D", 5])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="expected an ISO 8601 duration"):
        duration(text)


def test_months_have_no_exact_length() -> None:
    assert duration("P1Y3M").months == 15
    with pytest.raises(ValueError, match="no exact length"):
        _ = duration("P3M").timedelta
