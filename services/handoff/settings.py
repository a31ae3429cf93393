"""What an operator may set for handoff."""

from __future__ import annotations

from pydantic import Field

from shared.settings import Settings


class HandoffSettings(Settings):
    """`clocks_poll_ms`: how late a breach is seen when nothing wakes the watch; `clocks_batch`: handoffs at once."""

    clocks_poll_ms: int = Field(default=500, ge=10, le=60_000)
    clocks_batch: int = Field(default=500, ge=1, le=5_000)
