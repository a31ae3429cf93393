"""deploy/dev: servers a person can use, and that never outlive the tests that started them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support import MISSING, ROOT, missing

POSTGRES = [sys.executable, str(ROOT / "deploy/dev/postgres")]
CALLER = """
import subprocess, sys, time
subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, start_new_session=True)
time.sleep(60)
"""
pytestmark = pytest.mark.postgres


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that the user `postgres` can reach: pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="baton-test-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory) / "postgres"


def postgres(*arguments: str) -> str:
    done = subprocess.run([*POSTGRES, *arguments], capture_output=True, text=True, check=False)
    if done.returncode == MISSING:
        missing(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def is_reachable(address: str) -> bool:
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(address, connect_timeout=2):
        return True
    return False


def becomes_true(is_so: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.05)
    return is_so()


def test_a_postgresql_syncs_to_the_disk_and_keeps_its_data_and_address_over_a_stop(home: Path) -> None:
    address = postgres("start", "--directory", str(home))
    try:
        with psycopg.connect(address, autocommit=True) as connection:
            assert connection.execute("SHOW fsync").fetchone() == ("on",)
            connection.execute("CREATE TABLE kept (n int)")
    finally:
        postgres("stop", "--directory", str(home))
    assert not is_reachable(address)
    try:
        assert postgres("start", "--directory", str(home)) == address
        with psycopg.connect(address) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    finally:
        postgres("stop", "--directory", str(home))


def test_a_server_ends_when_its_caller_is_killed(home: Path) -> None:
    command = [*POSTGRES, "run", "--until-eof", "--no-fsync", "--directory", str(home)]
    with subprocess.Popen([sys.executable, "-c", CALLER, *command], stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout is not None
        address = caller.stdout.readline().strip()
        if not address:
            missing("PostgreSQL did not start")
        assert is_reachable(address)
        caller.kill()
    assert becomes_true(lambda: not is_reachable(address))
    assert becomes_true(lambda: not (home / "data/postmaster.pid").exists())
