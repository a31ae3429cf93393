"""Who is heard and who hangs: a dead database stops no beat, and nobody beats for somebody else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from services.handoff.watch import watch
from services.notifier.compose import Channel
from services.notifier.deliver import DeliverSettings, deliver
from services.scoring.refold import refold
from shared.db import Database, Limits
from shared.heartbeat import STUCK_SECONDS, Pulse, beat, beating, beating_apart
from shared.service import Role
from tests.silence import silent_database, silent_port

GIVING_BACK_SECONDS = 10.0  # a connection, after trouble: 5 s to roll back, 5 s to return it
ATTEMPT = Limits(connect_seconds=0.2, pool_seconds=0.2)

ROLES: dict[str, Callable[[Database], Role]] = {
    "watch": lambda database: partial(watch, database),
    "refold": lambda database: partial(refold, database),
    "deliver": lambda database: partial(deliver, database=database, senders={}, settings=DeliverSettings()),
}


@pytest.fixture
def silent() -> Iterator[Database]:
    with silent_port() as port:
        yield silent_database(port, "handoff", ATTEMPT)


async def longest_silence(pulse: Pulse, seconds: float) -> float:
    """The longest time that the role, or any loop of it, was not heard."""
    started_at = time.monotonic()
    longest = 0.0
    while (now := time.monotonic()) - started_at < seconds:
        heard = [each.beaten for each in pulse.parts or [pulse] if each.beaten is not None]
        longest = max([longest, *(now - beaten for beaten in heard)])
        await asyncio.sleep(0.02)
    return longest


def test_one_attempt_at_a_silent_database_ends_well_before_its_role_counts_as_stuck() -> None:
    limits = Limits()
    assert limits.connect_seconds + limits.pool_seconds + limits.answer_seconds + GIVING_BACK_SECONDS < STUCK_SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("name", ROLES)
async def test_a_role_is_heard_at_each_attempt_at_a_database_that_never_answers(name: str, silent: Database) -> None:
    stop, pulse = asyncio.Event(), Pulse(name)
    with beating(pulse):
        role = asyncio.ensure_future(ROLES[name](silent)(stop))
    silence = await longest_silence(pulse, 3.0)
    assert any(each.beaten for each in (pulse, *pulse.parts))
    assert silence < 1.7  # five attempts take two seconds and more; `deliver` also waits for its poll, a second
    stop.set()
    await asyncio.wait_for(role, 15)


async def test_a_line_that_hangs_is_named_whatever_the_others_say() -> None:
    pulse, is_over = Pulse("notifier.deliver"), asyncio.Event()

    async def line(name: str) -> None:
        with beating_apart(name):
            beat()
            await is_over.wait()

    with beating(pulse):
        lines = [asyncio.create_task(line(name)) for name in ("email", "slack")]
    await asyncio.sleep(0)
    slack = pulse.parts[1]
    assert slack.beaten is not None
    slack.beaten -= STUCK_SECONDS + 1
    assert pulse.stuck(time.monotonic()) == ["notifier.deliver.slack"]
    is_over.set()
    await asyncio.gather(*lines)
    assert (pulse.parts, pulse.stuck(time.monotonic())) == ([], [])


@pytest.mark.slow
async def test_each_channel_has_a_pulse_of_its_own(silent: Database) -> None:
    stop, pulse = asyncio.Event(), Pulse("notifier.deliver")
    with beating(pulse):
        role = asyncio.ensure_future(ROLES["deliver"](silent)(stop))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [part.name for part in pulse.parts] == [f"notifier.deliver.{channel}" for channel in Channel]
    stop.set()
    await asyncio.wait_for(role, 15)
    assert pulse.parts == []
