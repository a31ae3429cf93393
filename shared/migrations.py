"""Alembic, once a service, on both databases; safe when several processes start at once.

PostgreSQL: a session-level advisory lock on a connection of its own (a transaction-level one is dropped by a migration
that ends its transaction). SQLite: the server's file lock already made this process the only one. A migration runs in
one transaction on both, so that one killed half-way leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command, context, op
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection, Engine, make_url

from shared.advisory import LOCK_CLASS, lock_key

WAIT_SECONDS = 120

Instant = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")


@dataclass(frozen=True, slots=True)
class Migrated:
    """Revisions of a service's database, before and after; None: empty."""

    service: str
    before: str | None
    after: str | None


def migrate(url: str, *, service: str, directory: Path, revision: str = "head") -> Migrated:
    """Bring a service's database to a revision: `head`, `base`, or an older one's id. Blocking."""
    engine = _engine(url, service)
    try:
        with engine.connect() as connection, _locked(engine, service):
            before = _revision(connection)
            connection.rollback()
            if revision != "head" or before != head(directory):
                _run(connection, directory, before, revision)
            return Migrated(service, before, _revision(connection))
    finally:
        engine.dispose()


def current(url: str, *, service: str) -> str | None:
    """The revision the database is at, None if it was never migrated. Blocking."""
    engine = _engine(url, service)
    try:
        with engine.connect() as connection:
            return _revision(connection)
    finally:
        engine.dispose()


def head(directory: Path) -> str | None:
    """The newest revision in the code."""
    return ScriptDirectory(str(directory)).get_current_head()


def run_in_alembic() -> None:
    """What each service's `migrations/env.py` calls."""
    context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


def create_spine_tables() -> None:
    """For each service's first migration: its positions in the log, outbox, answers to repeated requests."""
    op.create_table(
        "positions",
        sa.Column("topic", sa.Text, primary_key=True),
        sa.Column("partition", sa.BigInteger, primary_key=True),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
        sa.Column("dead_in_row", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("moved_at", Instant, nullable=False),
    )
    op.create_table(
        "outbox",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            sa.Identity(),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("shard", sa.BigInteger, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("headers", sa.Text, nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("published_at", Instant),
        sa.Column("parked_at", Instant),
        sa.Column("parked_cause", sa.Text),
    )
    waiting = sa.text("published_at IS NULL AND parked_at IS NULL")
    op.create_index("outbox_waiting", "outbox", ["id"], postgresql_where=waiting, sqlite_where=waiting)
    published = sa.text("published_at IS NOT NULL")
    op.create_index("outbox_published", "outbox", ["published_at"], postgresql_where=published, sqlite_where=published)
    parked = sa.text("parked_at IS NOT NULL")
    op.create_index("outbox_parked", "outbox", ["parked_at"], postgresql_where=parked, sqlite_where=parked)
    op.create_table(
        "idempotency",
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("request_hash", sa.Text, nullable=False),
        sa.Column("status", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created_at", Instant, nullable=False),
    )
    op.create_index("idempotency_created", "idempotency", ["created_at"])


def create_redrives_table() -> None:
    """Which dead letters went back already: `redrive.py`."""
    op.create_table(
        "redrives",
        sa.Column("topic", sa.Text, primary_key=True),
        sa.Column("partition", sa.BigInteger, primary_key=True),
        sa.Column("dead_offset", sa.BigInteger, primary_key=True),
        sa.Column("redriven_at", Instant, nullable=False),
    )


def drop_redrives_table() -> None:
    """The reverse of `create_redrives_table`."""
    op.drop_table("redrives")


def drop_spine_tables() -> None:
    """The reverse of `create_spine_tables`."""
    for table in ("idempotency", "outbox", "positions"):
        op.drop_table(table)


def _run(connection: Connection, directory: Path, before: str | None, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(directory).replace("%", "%%"))
    config.attributes["connection"] = connection
    is_older = before is not None and revision != "head"
    (command.downgrade if is_older else command.upgrade)(config, revision)


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


@contextmanager
def _locked(engine: Engine, service: str) -> Iterator[None]:
    """Hold the service's migration lock, and make its schema."""
    if engine.dialect.name == "sqlite":
        yield
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text(f"SET lock_timeout = '{WAIT_SECONDS}s'"))
        key = {"class": LOCK_CLASS, "key": lock_key(f"migrations:{service}")}
        connection.execute(sa.text("SELECT pg_advisory_lock(:class, :key)"), key)
        try:
            connection.execute(sa.text(f'CREATE SCHEMA IF NOT EXISTS "{service}"'))
            yield
        finally:
            connection.execute(sa.text("SELECT pg_advisory_unlock(:class, :key)"), key)


def _engine(url: str, service: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        options = {"options": f"-c search_path={service}", "connect_timeout": 5}
        return sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"), connect_args=options, poolclass=sa.NullPool
        )
    if not parsed.database:
        raise ValueError(f"{url}: a SQLite database of Baton is a file")
    Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(
        f"sqlite:///{parsed.database}", connect_args={"isolation_level": None, "timeout": 30}, poolclass=sa.NullPool
    )

    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    sa.event.listen(engine, "begin", begin)
    return engine
