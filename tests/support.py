"""What the tests share: the real servers they run over, and fresh databases and topics on them."""

from __future__ import annotations

import atexit
import os
import secrets
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Literal, NoReturn

import psycopg
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from sqlalchemy.engine import make_url

from shared.bus import Bus
from shared.db import Database
from shared.kafka import KafkaLimits
from shared.migrations import migrate
from shared.topics import TOPICS, Topic

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 300  # the first start of a Kafka fetches it
MISSING = 3  # exit code of deploy/dev/*: this machine lacks something
SERVICES = ("scoring", "handoff", "notifier")
KAFKA_LIMITS = KafkaLimits(
    request_seconds=4.0,
    publish_seconds=5.0,
    session_seconds=1.5,
    heartbeat_seconds=0.3,
    rebalance_seconds=10.0,
    stale_seconds=6.0,
)


def missing(what: str) -> NoReturn:
    """Skip the test, saying what it needs; where everything must be there (CI), fail it."""
    if os.environ.get("BATON_TEST_REQUIRE") == "all":
        pytest.fail(f"BATON_TEST_REQUIRE=all, but {what}")
    pytest.skip(what)


@contextmanager
def dev_server(name: Literal["kafka", "postgres"], *options: str) -> Iterator[str]:
    """Run `deploy/dev/NAME`; its address. It ends with this process, however that ends: its input closes."""
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "deploy/dev" / name), "run", "--until-eof", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us: the tests that use it end first
        text=True,
    )
    assert server.stdout is not None
    with server:
        try:
            is_ready = select.select([server.stdout], [], [], START_SECONDS)[0]
            address = server.stdout.readline().strip() if is_ready else ""
            if address:
                yield address
            else:
                _explain(name, server)
        finally:
            server.terminate()
            server.communicate(timeout=60)


def _explain(name: str, server: subprocess.Popen[str]) -> NoReturn:
    server.terminate()
    _, said = server.communicate(timeout=60)
    if server.returncode == MISSING:
        missing(said.strip())
    pytest.fail(f"deploy/dev/{name} did not start: {said}")


def migrated(url: str, service: str) -> Database:
    """The service's database at its newest revision. `spine`: only the tables that every service has."""
    file = make_url(url).database
    if url.startswith("sqlite") and file and not Path(file).exists():
        shutil.copyfile(migrated_file(service), file)
    else:
        migrate(url, service=service, directory=migrations_of(service))
    return Database(url, service=service)


@cache
def migrated_file(service: str) -> Path:
    """A SQLite database at its newest revision, made once a session: a copy costs a tenth of a migration."""
    file = Path(tempfile.mkdtemp(prefix="baton-migrated-")) / f"{service}.sqlite"
    atexit.register(shutil.rmtree, file.parent)
    migrate(f"sqlite:///{file}", service=service, directory=migrations_of(service))
    return file


def migrations_of(service: str) -> Path:
    return ROOT / "services" / service / "migrations" if service in SERVICES else ROOT / "tests/spine"


class Stack:
    """One profile, fresh for one test: a bus without topics, and a database of each service."""

    def __init__(self, name: Literal["embedded", "cluster"], bus: Bus, databases: Databases) -> None:
        self.name = name
        self.bus = bus
        self.databases = databases

    def database_url(self, service: str) -> str:
        return self.databases.url(service)

    def open_database(self, service: str) -> Database:
        """The service's migrated database, closed when the test ends."""
        return self.databases.open(service)

    async def ensure_topics(self, topics: Sequence[Topic] = TOPICS) -> None:
        """Create them, with two partitions each: enough to see what partitions do, few enough to be quick."""
        await self.bus.ensure_topics([replace(topic, partitions=min(topic.partitions, 2)) for topic in topics])


@dataclass
class Databases:
    """Fresh databases for one test. `open` gives a migrated one that is closed when the test ends."""

    name: Literal["sqlite", "postgresql"]
    place: str
    opened: list[Database] = field(default_factory=list)

    def url(self, service: str) -> str:
        """SQLite: a file per service; PostgreSQL: one database, where each service has its schema."""
        return f"sqlite:///{self.place}/{service}.sqlite" if self.name == "sqlite" else self.place

    def open(self, service: str) -> Database:
        self.opened.append(migrated(self.url(service), service))
        return self.opened[-1]

    async def close(self) -> None:
        for database in self.opened:
            await database.close()


async def delete_topics(kafka: str, prefix: str) -> None:
    """Delete every topic whose name begins with the prefix."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        if topics := [name for name in await admin.list_topics() if name.startswith(prefix)]:
            await admin.delete_topics(topics)
    finally:
        await admin.close()


@contextmanager
def fresh_postgresql_database(server: str) -> Iterator[str]:
    """A database of its own on the session's server; its URL."""
    name = f"test_{secrets.token_hex(6)}"
    _administer(server, f'CREATE DATABASE "{name}"')
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        _administer(server, f'DROP DATABASE "{name}" WITH (FORCE)')


def _administer(server: str, statement: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(statement.encode())
