"""`baton migrate | check`: what is stored, forward, back and sound."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.cli.conftest import Server, baton

pytestmark = pytest.mark.slow

OLD = "2020-01-01T00:00:00.000000Z"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    assert baton("migrate", "--data", tmp_path).code == 0
    return tmp_path


def test_every_service_goes_to_its_head_and_back_to_nothing(tmp_path: Path) -> None:
    up = baton("migrate", "--data", tmp_path, "-o", "json").json["services"]
    assert [one["service"] for one in up] == ["handoff", "notifier", "scoring"]
    assert all(one["before"] is None and one["after"] for one in up)
    again = baton("migrate", "--data", tmp_path, "-o", "json").json["services"]
    assert again[0]["before"] == up[0]["after"]
    down = baton("migrate", "--data", tmp_path, "--to", "base", "-o", "json").json["services"]
    assert all(one["after"] is None for one in down)


def test_a_revision_belongs_to_one_service(tmp_path: Path) -> None:
    assert baton("migrate", "--data", tmp_path, "--to", "0001").code == 2
    assert baton("migrate", "--data", tmp_path, "--service", "skoring").code == 2


def test_while_the_server_runs_nobody_migrates(server: Server) -> None:
    ran = baton("migrate", "--data", server.data)
    assert ran.code == 1
    assert "in use" in ran.err


def test_a_running_server_is_sound(server: Server) -> None:
    ran = baton("check", "--data", server.data, "-o", "json")
    assert ran.json == {"findings": []}
    assert ran.code == 0
    assert baton("check", "--data", server.data).out == "nothing found\n"


def test_where_nothing_was_ever_started_there_is_nothing_to_read(tmp_path: Path) -> None:
    for arguments in (["check"], ["tail", "baton.leads.v1"], ["dlq", "ls"]):
        ran = baton(*arguments, "--data", tmp_path / "typo")
        assert ran.code == 1
        assert "typo" in ran.err
    assert not (tmp_path / "typo").exists()


def test_an_event_that_nobody_published_is_found(data: Path) -> None:
    with sqlite3.connect(data / "scoring.sqlite") as database:
        database.execute(
            "INSERT INTO outbox (event_id, topic, shard, key, value, headers, created_at)"
            " VALUES ('event_1', 'baton.leads.v1', 0, x'', x'', '[]', ?)",
            [OLD],
        )
    database.close()
    ran = baton("check", "--data", data, "-o", "json")
    assert ran.code == 1
    assert ("I14", "event_1") in [(finding["invariant"], finding["subject"]) for finding in ran.json["findings"]]
    assert "event_1" in baton("check", "--data", data).out


def test_an_mql_without_a_handoff_is_found(data: Path) -> None:
    with sqlite3.connect(data / "scoring.sqlite") as database:
        insert_row(database, "mqls", mql_id="mql_1")
    database.close()
    found = [
        (one["invariant"], one["subject"]) for one in baton("check", "--data", data, "-o", "json").json["findings"]
    ]
    assert ("I8", "mql_1") in found
    grace = str(100 * 365 * 86400)
    late = baton("check", "--data", data, "--grace", grace, "-o", "json").json["findings"]
    assert ("I8", "mql_1") not in [(one["invariant"], one["subject"]) for one in late]


def test_the_grace_reaches_every_service(data: Path) -> None:
    with sqlite3.connect(data / "handoff.sqlite") as database:
        insert_row(database, "clocks", clock_id="clock_1", state="open")
    database.close()
    with sqlite3.connect(data / "notifier.sqlite") as database:
        insert_row(database, "deliveries", delivery_id="dlv_1", state="pending", next_attempt_at=OLD)
    database.close()
    for grace, is_found in (("0", True), (str(100 * 365 * 86400), False)):
        findings = baton("check", "--data", data, "--grace", grace, "-o", "json").json["findings"]
        late = {(one["invariant"], one["subject"]) for one in findings if "since" in one["detail"]}
        assert late == ({("I10", "clock_1"), ("I22", "dlv_1")} if is_found else set())


def insert_row(database: sqlite3.Connection, table: str, **known: str) -> None:
    """A row with every required column filled by its type."""
    columns = [row for row in database.execute(f"PRAGMA table_info({table})") if row[3] or row[5]]
    filled = {name: 1 if kind in ("BIGINT", "INTEGER", "BOOLEAN") else "x" for _, name, kind, *_ in columns}
    filled |= {name: OLD for name in filled if name.endswith("_at")} | known
    database.execute("PRAGMA foreign_keys=OFF")
    names, marks = ", ".join(filled), ", ".join("?" for _ in filled)
    database.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(filled.values()))
