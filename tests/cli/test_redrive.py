"""`baton dlq redrive` on both profiles: said before it is done, done once, and never for ever."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.bus import Bus, Message
from shared.embedded import EmbeddedBus
from shared.topics import TOPICS
from tests.system import PROFILES, Profile, System, system_of, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

KEYS = [b"lead_1", b"lead_2", b"lead_3"]


@pytest.fixture(params=PROFILES)
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[System]:
    """A system that found three records it cannot use."""
    profile: Profile = request.param
    with system_of(profile, request, tmp_path) as system:
        asyncio.run(publish_poison(system))
        system.start()
        until("three dead letters", lambda: len(dead_letters(system)) == 3)
        yield system


async def publish_poison(system: System) -> None:
    bus: Bus = EmbeddedBus(system.directory / "log.sqlite") if system.profile == "embedded" else system.bus()
    await bus.ensure_topics(TOPICS)
    producer = await bus.producer()
    poison = [Message("baton.activities.v1", key, b"no event of ours", (("sent-by", b"a test"),)) for key in KEYS]
    assert await producer.publish(poison) == [None] * 3
    await producer.close()
    await bus.close()


def dead_letters(system: System) -> list[dict[str, Any]]:
    ran = system.command("dlq", "ls", "--service", "scoring", "-o", "json")
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def redrive(system: System, *arguments: str) -> dict[str, Any]:
    ran = system.command("dlq", "redrive", "scoring", *arguments, "-o", "json")
    assert ran.returncode == 0, ran.stderr
    told: dict[str, Any] = json.loads(ran.stdout)
    return told


def test_it_tells_first_sends_each_once_and_ends_at_the_cap(system: System) -> None:
    told = redrive(system, "--all")
    assert (told["dry"], told["chosen"], told["redriven"]) == (True, 3, 0)
    (line,) = told["reasons"]
    assert (line["reason"], line["topic"], line["records"]) == ("unreadable", "baton.activities.v1", 3)
    assert len(dead_letters(system)) == 3

    assert redrive(system, "--all", "--key", "lead_2", "--go")["redriven"] == 1
    until("it died again", lambda: len(dead_letters(system)) == 4)
    again = next(one for one in dead_letters(system) if one["replays"] == "1")
    assert (again["key"], again["reason"]) == ("lead_2", "unreadable")
    shown = json.loads(system.command("dlq", "show", again["place"], "-o", "json").stdout)
    assert (shown["value"], shown["headers"]["sent-by"]) == ("no event of ours", "a test")

    assert redrive(system, "--all", "--max", "1")["chosen"] == 1
    for sent, total in ((3, 7), (2, 9)):  # two for the first time and one for the second; two for the second time
        assert redrive(system, "--since", "1h", "--rate", "50", "--go")["redriven"] == sent
        until("they all died again", lambda expected=total: len(dead_letters(system)) == expected)
    told = redrive(system, "--all", "--go")
    assert (told["redriven"], told["chosen"]) == (0, 0)
    (line,) = told["reasons"]
    assert (line["records"], line["done"], line["capped"], line["redrive"]) == (9, 6, 3, 0)

    assert system.stop() == 0
    assert redrive(system, "--all", "--cap", "3", "--go")["redriven"] == 3  # nobody runs: it waits in the outbox
    system.start()
    until("the next server published them", lambda: len(dead_letters(system)) == 12)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["scoring"], "either --since"),
        (["scoring", "--all", "--since", "2h"], "either --since"),
        (["scoring", "--since", "yesterday"], "expected a time"),
        (["skoring", "--all"], "did you mean 'scoring'"),
    ],
)
def test_a_call_that_leaves_it_open_which_is_wrong(tmp_path: Path, arguments: list[str], said: str) -> None:
    ran = System("embedded", tmp_path, {}).command("dlq", "redrive", *arguments)
    assert ran.returncode == 2
    assert said in ran.stderr


def test_a_log_without_the_topic_is_refused(tmp_path: Path) -> None:
    EmbeddedBus(tmp_path / "log.sqlite")  # made, and empty
    ran = System("embedded", tmp_path, {}).command("dlq", "redrive", "scoring", "--all", "--go")
    assert ran.returncode == 1
    assert "baton.scoring.dlq.v1 does not exist: run `baton topics ensure`" in ran.stderr


def test_a_person_sees_a_histogram(system: System) -> None:
    said = system.command("dlq", "redrive", "scoring", "--all").stdout
    assert "unreadable" in said
    assert "3 would go back; nothing was done" in said
    assert "no such dead letters" in system.command("dlq", "redrive", "scoring", "--all", "--reason", "other").stdout
