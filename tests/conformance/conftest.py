"""Fixtures of the conformance tests."""

from __future__ import annotations

import pytest

from shared.bus import Bus
from tests.conformance.things import THINGS


@pytest.fixture
async def log(bus: Bus) -> Bus:
    """The event log with a topic of two partitions."""
    await bus.ensure_topics([THINGS])
    return bus
