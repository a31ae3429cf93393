"""How a role says that it makes progress: it calls `beat()` once a round, also when it only waited or failed.

A dependency that is away must not stop the beat (a restart would not bring it back); a loop that hangs does. A role of
several loops gives each a pulse of its own (`beating_apart`), or the others would beat for the one that hangs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

STUCK_SECONDS = 60.0  # longer than one attempt at a database that says nothing: `Database.run` beats at each


@dataclass(slots=True)
class Pulse:
    """When a role was last heard, by the monotonic clock; None until its first beat. `parts`: of its loops that run."""

    name: str
    beaten: float | None = None
    parts: list[Pulse] = field(default_factory=list)

    def is_stuck(self, now: float) -> bool:
        return self.beaten is not None and now - self.beaten > STUCK_SECONDS

    def stuck(self, now: float) -> list[str]:
        """The names of what hangs: the role's own, or those of its loops."""
        return [pulse.name for pulse in (self, *self.parts) if pulse.is_stuck(now)]


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


@contextmanager
def beating_apart(name: str) -> Iterator[None]:
    """Beats inside are those of one loop of this role, and nobody else's."""
    whole = _pulse.get() or Pulse("")
    part = Pulse(f"{whole.name}.{name}")
    whole.parts.append(part)
    try:
        with beating(part):
            yield
    finally:
        whole.parts.remove(part)
