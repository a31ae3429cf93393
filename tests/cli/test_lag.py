"""`baton lag` on both profiles: how far behind, for how long, and who reads."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.topics import consumed_by
from tests.system import PROFILES, Profile, System, system_of, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(params=PROFILES)
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[System]:
    profile: Profile = request.param
    with system_of(profile, request, tmp_path) as system:
        yield system


def lag(system: System, *arguments: str) -> dict[str, Any]:
    ran = system.command("lag", "-o", "json", *arguments)
    assert ran.returncode == 0, ran.stderr
    told: dict[str, Any] = json.loads(ran.stdout)
    return told


def send(system: System, *names: str) -> None:
    with system.client() as client:
        for name in names:
            item = {"kind": "page_viewed", "identities": {"email": f"{name}@example.com"}, "properties": {}}
            client.post("/v1/activities", json=item).raise_for_status()


def test_who_has_read_everything_is_not_behind_and_who_has_not_is_for_as_long(system: System) -> None:
    system.start()
    send(system, "ana", "bo")
    until("all is read", lambda: lag(system)["messages"] == 0)
    told = lag(system)
    places = {(one["service"], one["topic"], one["partition"]) for one in told["partitions"]}
    assert places == {
        (service, topic.name, partition)
        for service in ("scoring", "handoff", "notifier")
        for topic in consumed_by(service)
        for partition in range(topic.partitions)
    }
    assert told["seconds"] == 0
    (owner,) = {one["owner"] for one in told["partitions"]}
    assert system.process is not None
    assert owner == f"{socket.gethostname()}-{system.process.pid}"
    assert sum(one["position"] for one in told["partitions"] if one["topic"] == "baton.activities.v1") == 2

    assert system.stop() == 0
    system.start(roles="api,relay")
    send(system, "cy", "di", "ed")
    until("three wait", lambda: lag(system)["messages"] == 3)
    first = lag(system, "--service", "scoring")
    until("they grow older", lambda: lag(system)["seconds"] > first["seconds"] > 0)
    assert {one["service"] for one in first["partitions"]} == {"scoring"}

    assert system.command("lag", "--fail-over", "3600").returncode == 0
    over = system.command("lag", "--fail-over", "0.01")
    assert over.returncode == 2
    assert "3 messages behind" in over.stdout
    assert "over 0.01 s: scoring baton.activities.v1/" in over.stdout

    assert system.stop() == 0
    assert lag(system)["messages"] == 3
    if system.profile == "cluster":
        assert {one["owner"] for one in lag(system)["partitions"]} == {None}


def test_a_position_that_the_log_does_not_hold_is_said(tmp_path: Path) -> None:
    system = System("embedded", tmp_path, {})
    system.start()
    assert system.stop() == 0
    with sqlite3.connect(tmp_path / "scoring.sqlite") as connection:
        connection.execute("UPDATE positions SET next_offset = 99 WHERE topic = 'baton.agreements.v1'")
    connection.close()
    (wrong,) = [one for one in lag(system)["partitions"] if one["trouble"]]
    assert (wrong["topic"], wrong["trouble"], wrong["seconds"]) == ("baton.agreements.v1", "the log holds 0 to 0", None)
    assert system.command("lag", "--fail-over", "3600").returncode == 2


def test_where_nothing_is_stored_it_says_so(tmp_path: Path) -> None:
    ran = System("embedded", tmp_path, {}).command("lag")
    assert ran.returncode == 1
    assert "baton up" in ran.stderr
    assert System("embedded", tmp_path, {}).command("lag", "--service", "skoring").returncode == 2
