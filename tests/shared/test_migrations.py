"""Each service's migrations: up and down on both databases, by several processes at once, and killed half-way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from shared.migrations import Migrated, current, head, migrate
from tests.support import SERVICES, Databases, migrations_of

MIGRATE = """
import sys
from pathlib import Path
from shared.migrations import migrate
print("begun", flush=True)
migrate(sys.argv[1], service=sys.argv[2], directory=Path(sys.argv[3]))
"""


def migrating(url: str, service: str) -> subprocess.Popen[str]:
    """A process of its own that brings the database to the newest revision."""
    command = [sys.executable, "-c", MIGRATE, url, service, str(migrations_of(service))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("service", SERVICES)
def test_a_database_goes_up_down_to_nothing_and_up_again(databases: Databases, service: str) -> None:
    url, directory = databases.url(service), migrations_of(service)
    newest = head(directory)
    assert migrate(url, service=service, directory=directory) == Migrated(service, None, newest)
    assert migrate(url, service=service, directory=directory) == Migrated(service, newest, newest)
    assert migrate(url, service=service, directory=directory, revision="base") == Migrated(service, newest, None)
    assert current(url, service=service) is None
    assert migrate(url, service=service, directory=directory) == Migrated(service, None, newest)


ON_POSTGRESQL = pytest.mark.parametrize(
    "databases", [pytest.param("postgresql", marks=pytest.mark.postgres)], indirect=True
)


@pytest.mark.slow
@ON_POSTGRESQL
def test_processes_that_start_at_once_migrate_once(databases: Databases) -> None:
    url = databases.url("scoring")
    started = [migrating(url, "scoring") for _ in range(4)]
    ended = [(process.communicate(timeout=60)[1], process.returncode) for process in started]
    assert [code for _, code in ended] == [0] * 4, ended
    assert current(url, service="scoring") == head(migrations_of("scoring"))


@pytest.mark.slow
def test_a_migration_killed_half_way_leaves_what_the_next_start_finishes(databases: Databases) -> None:
    url, newest = databases.url("handoff"), head(migrations_of("handoff"))
    killed = 0
    for milliseconds in range(0, 120, 15):  # somewhere in between, wherever that is on this machine
        process = migrating(url, "handoff")
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "begun"
        time.sleep(milliseconds / 1000)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed
    migrate(url, service="handoff", directory=migrations_of("handoff"))
    assert current(url, service="handoff") == newest
