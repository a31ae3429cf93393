"""How a role says that it makes progress: it calls `beat()` once a round, also when it only waited or failed.

A dependency that is away must not stop the beat (a restart would not bring it back); a loop that hangs does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

STUCK_SECONDS = 60.0  # longer than the longest statement, its answer deadline and a drain


@dataclass(slots=True)
class Pulse:
    """When a role was last heard, by the monotonic clock; None until its first beat."""

    name: str
    beaten: float | None = field(default=None)

    def is_stuck(self, now: float) -> bool:
        return self.beaten is not None and now - self.beaten > STUCK_SECONDS


_pulse: ContextVar[Pulse | None] = ContextVar("pulse", default=None)


def beat() -> None:
    """This role goes on. Outside a supervised role it does nothing."""
    pulse = _pulse.get()
    if pulse is not None:
        pulse.beaten = time.monotonic()


@contextmanager
def beating(pulse: Pulse) -> Iterator[None]:
    """Beats inside are this role's."""
    token = _pulse.set(pulse)
    try:
        yield
    finally:
        _pulse.reset(token)
