"""Killed at the worst moment: nothing lost, nothing twice, on both profiles.

A load generator with a ledger of its own sends until each item has its 2xx, as a good sender does; the system is killed
at a named step and started again. Afterwards the ledger, the books and the log must agree.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest

from shared.bus import Bus
from shared.db import Database, Session
from shared.envelope import decode
from shared.sql import sql
from tests.system import PROFILES, Profile, System, system_of, until

LEADS = 12
SOURCE_IDS = sql("SELECT source_id, count(*) AS times FROM activities GROUP BY source_id")
MQLS = sql("SELECT lead_id, count(*) AS times FROM mqls GROUP BY lead_id")
HANDOFFS = sql("SELECT mql_id, count(*) AS times FROM handoffs GROUP BY mql_id")
ASSIGNED = sql("SELECT count(*) AS times FROM handoff_history WHERE type = 'handoff.assigned'")


@dataclass
class Sender:
    """Repeats each item until it is answered 2xx, and remembers which were."""

    system: System
    acknowledged: set[str] = field(default_factory=set)
    repeated: int = 0

    def send(self, item: dict[str, object]) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            self.system.revive()
            try:
                with self.system.client() as client:
                    answer = client.post("/v1/activities", json=item)
            except httpx.TransportError:
                self.repeated += 1
                time.sleep(0.05)
                continue
            if answer.status_code == httpx.codes.OK:
                self.acknowledged.add(str(item["id"]))
                return
            assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, answer.text
            assert "Retry-After" in answer.headers
            self.repeated += 1
            time.sleep(0.05)
        raise AssertionError(f"{item['id']} was never answered")

    def send_all(self) -> None:
        facts = {"company_size": 500, "country": "US", "industry": "manufacturing"}
        for number in range(LEADS):
            who = {"identities": {"email": f"lead{number}@example.com"}}
            seen = {**who, "kind": "page_viewed", "properties": {"path": "/pricing"}, "attributes": facts}
            self.send({**seen, "id": f"{number}-seen"})
            self.send({**who, "kind": "demo_requested", "id": f"{number}-demo"})


@pytest.fixture(params=PROFILES)
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[System]:
    profile: Profile = request.param
    with system_of(profile, request, tmp_path) as system:
        yield system


def read_books(system: System) -> dict[str, Counter[str]]:
    """Counts straight from the databases, while nothing writes."""

    async def read() -> dict[str, Counter[str]]:
        url = system.settings.get("BATON_DATABASE_URL")
        books: dict[str, Counter[str]] = {}
        for name, service, statement, key in (
            ("activities", "scoring", SOURCE_IDS, "source_id"),
            ("mqls", "scoring", MQLS, "lead_id"),
            ("handoffs", "handoff", HANDOFFS, "mql_id"),
        ):
            place = url or f"sqlite:///{system.directory}/{service}.sqlite"
            database = Database(place, service=service, read_only=True)
            rows = await database.read(partial(Session.execute, statement=statement))
            books[name] = Counter({getattr(row, key): row.times for row in rows})
            await database.close()
        return books

    return asyncio.run(read())


def published(system: System, topic: str) -> Counter[str]:
    """How often each event id stands in a topic."""

    async def read(bus: Bus) -> Counter[str]:
        found: Counter[str] = Counter()
        for place, held in (await bus.ranges([topic])).items():
            position = held.begin
            while position < held.end:
                records = await bus.read(place, position, max_records=500, timeout_seconds=5.0)
                assert records
                found.update(decode(record).id for record in records)
                position = records[-1].offset + 1
        await bus.close()
        return found

    async def run() -> Counter[str]:
        return await read(system.bus())

    return asyncio.run(run())


def is_settled(system: System) -> bool:
    system.revive()
    return not system.findings() and books_are_full(system)


def books_are_full(system: System) -> bool:
    books = read_books(system)
    return len(books["handoffs"]) == LEADS


STEPS = [
    "intake.before_commit:5",  # K1
    "intake.after_commit:5",  # K2: stored, not yet answered
    "scoring.relay.after_publish:3",  # K4: published, not yet marked
    "handoff.relay.after_publish:3",
    "scoring.consume.before_commit:3",  # K6: in the transaction
    "handoff.consume.before_commit:3",
    "notifier.consume.before_commit:3",
    "scoring.consume.after_commit:3",  # K7: committed, the log not told
    "handoff.consume.after_commit:3",
    "notifier.consume.after_commit:3",
]


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step_nothing_is_lost_and_nothing_is_twice(system: System, step: str) -> None:
    system.start()
    system.publish_agreement()
    until("the agreement has arrived", lambda: bool(published(system, "baton.agreements.v1")))
    system.stop()
    system.start(BATON_FAILPOINT=step)

    sender = Sender(system)
    sender.send_all()
    until(f"killed at {step}", lambda: system.revive() or system.deaths > 0)
    until("the books are settled", lambda: is_settled(system))
    assert system.stop() == 0

    assert system.deaths == 1, "the run was vacuous"
    assert len(sender.acknowledged) == 2 * LEADS
    books = read_books(system)
    assert books["activities"] == Counter(dict.fromkeys(sender.acknowledged, 1))
    assert set(books["mqls"].values()) == {1}
    assert len(books["mqls"]) == LEADS
    assert set(books["handoffs"].values()) == {1}
    if step.startswith("intake"):
        assert sender.repeated > 0
    if step.startswith("scoring.relay"):
        twice = {topic: [one for one, times in published(system, topic).items() if times > 1]
                 for topic in ("baton.activities.v1", "baton.leads.v1", "baton.scores.v1")}  # fmt: skip
        assert any(twice.values()), "what was published and not marked is published again"
