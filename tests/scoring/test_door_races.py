"""Several doors at once, in one process and in several, and a process killed around its commit."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from typing import Any

import pytest

from services.scoring.door import Door
from shared.events import IdentityMerged
from tests.scoring.arriving import page, roots, rows, send, told
from tests.support import ROOT, Databases

pytestmark = pytest.mark.slow


async def test_a_shared_browser_fuses_nobody_between_two_intake_processes(databases: Databases) -> None:
    doors = [Door(databases.open("scoring")) for _ in range(2)]
    people: list[tuple[str | None, str | None]] = []

    async def one_round(number: int) -> None:
        browser = f"browser-{number}"
        if number % 2:
            await send(doors[0], {"id": f"visit-{number}", **page(anonymous_id=browser)})
        pair = [page(anonymous_id=browser, email=f"{name}{number}@acme.example") for name in ("ana", "bo")]
        (ana,), (bo,), _ = await asyncio.gather(
            send(doors[number % 2], pair[0]), send(doors[1 - number % 2], pair[1]), send(doors[0], pair[0], pair[1])
        )
        people.append((ana.lead_id, bo.lead_id))

    await asyncio.gather(*(one_round(number) for number in range(200)))
    joined = await roots(databases.opened[0])
    for ana, bo in people:
        assert ana is not None
        assert bo is not None
        assert joined.get(ana, ana) != joined.get(bo, bo)
    for event in await told(databases.opened[0]):
        assert not isinstance(event, IdentityMerged) or event.evidence == "weak"
    for door in doors:
        await door.close()


async def test_two_doors_that_teach_one_lead_a_user_id_each_do_not_make_one_person_of_two(databases: Databases) -> None:
    doors = [Door(databases.open("scoring")) for _ in range(2)]
    await send(doors[0], *(page(email=f"office{number}@acme.example") for number in range(40)))

    async def one_round(number: int) -> None:
        office = f"office{number}@acme.example"
        one, other = (page(user_id=f"{name}{number}", email=office) for name in ("ana", "bo"))
        (ana,), (bo,) = await asyncio.gather(send(doors[0], one), send(doors[1], other))
        assert ana.lead_id != bo.lead_id

    await asyncio.gather(*(one_round(number) for number in range(40)))
    assert not await roots(databases.opened[0])
    (found,) = await rows(databases.opened[0], "SELECT count(*) AS conflicts FROM identity_conflicts")
    assert found.conflicts == 40
    for door in doors:
        await door.close()


async def test_four_writers_over_the_same_people_never_wait_in_a_circle(databases: Databases) -> None:
    doors = [Door(databases.open("scoring")) for _ in range(4)]
    random_ids = random.Random(7)

    def somebody() -> dict[str, Any]:
        number = random_ids.randrange(60)
        ids = {"user_id": f"u{number}", "email": f"m{number}@acme.example", "anonymous_id": f"b{number % 20}"}
        kept = random_ids.sample(sorted(ids), random_ids.randint(1, 3))
        return {"id": str(random_ids.random()), **page(**{name: ids[name] for name in kept})}

    async def write(door: Door) -> None:
        for _ in range(12):
            verdicts = await send(door, *(somebody() for _ in range(25)))
            assert {verdict.status for verdict in verdicts} == {"accepted"}

    await asyncio.gather(*(write(door) for door in doors))
    assert len(await rows(databases.opened[0], "SELECT source_id FROM inbox")) == 4 * 12 * 25
    await databases.close()  # a server process reports its deadlocks at the latest when it ends
    if databases.name == "postgresql":
        deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        (found,) = await rows(databases.open("scoring"), deadlocks)
        assert found.deadlocks == 0


INTAKE = """
import asyncio, sys
from services.scoring.door import Door
from shared.db import Database
from tests.scoring.arriving import page, send

async def main(url, name, rounds):
    door = Door(Database(url, service="scoring"))
    sys.stdin.readline()

    async def one(number):
        item = {"id": f"{name}{number}", **page(email=f"{name}{number}@acme.example", anonymous_id=f"browser{number}")}
        (verdict,) = await send(door, item)
        return f"{verdict.status} {verdict.lead_id}"

    print(*await asyncio.gather(*map(one, range(rounds))), sep="\\n")

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def intake_process(url: str, name: str, rounds: int, **environment: str) -> subprocess.Popen[bytes]:
    """A process of its own with one door; it begins when it is told to, and says what became of each round."""
    return subprocess.Popen(
        [sys.executable, "-c", INTAKE, url, name, str(rounds)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def test_a_shared_browser_fuses_nobody_between_two_real_processes(databases: Databases) -> None:
    database = databases.open("scoring")
    processes = [intake_process(databases.url("scoring"), name, 200) for name in ("ana", "bo")]
    answers = [asyncio.to_thread(process.communicate, b"go\n", 60) for process in processes]
    (ana, _), (bo, errors) = await asyncio.gather(*answers)
    joined = await roots(database)
    people = [[joined.get(line, line) for line in said.decode().split() if line != "accepted"] for said in (ana, bo)]
    assert [len(found) for found in people] == [200, 200], errors.decode()
    assert not set(people[0]) & set(people[1])


@pytest.mark.parametrize(
    ("failpoint", "expected"), [("intake.before_commit", "accepted"), ("intake.after_commit", "duplicate")]
)
async def test_killed_around_the_commit_a_repeated_request_counts_once(
    databases: Databases, failpoint: str, expected: str
) -> None:
    """K1 and K2: the sender saw a broken connection, and sends again."""
    database = databases.open("scoring")
    process = intake_process(databases.url("scoring"), "ana", 1, BATON_FAILPOINT=failpoint)
    said, errors = await asyncio.to_thread(process.communicate, b"go\n", 60)
    assert process.returncode == -signal.SIGKILL, errors.decode()
    assert not said
    door = Door(database)
    (verdict,) = await send(door, {"id": "ana0", **page(email="ana0@acme.example", anonymous_id="browser0")})
    assert verdict.status == expected
    assert len(await told(database)) == 1
    await door.close()
