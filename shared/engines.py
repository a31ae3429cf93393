"""SQLAlchemy's engines as Baton needs them: every wait limited, and each database set to what it should have been.

PostgreSQL: psycopg 3, a schema per service as the search path. SQLite: WAL, fsync at each commit, foreign keys, and a
transaction that is begun by us as `BEGIN IMMEDIATE`, because a deferred one loses updates or fails at its first write.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from shared.arrays import send_packed
from shared.sql import sqlite_now


@dataclass(frozen=True, slots=True)
class Limits:
    """How long anything may take, in seconds, and how many connections a process holds."""

    connect_seconds: float = 5.0
    pool_seconds: float = 5.0
    lock_seconds: float = 5.0
    statement_seconds: float = 30.0
    pool_size: int = 10
    attempts: int = 5

    @property
    def answer_seconds(self) -> float:
        """When a server that says nothing is given up."""
        return self.statement_seconds + 5.0


def postgresql_engine(url: str, *, schema: str, limits: Limits) -> AsyncEngine:
    options = {
        "search_path": schema,
        "statement_timeout": int(limits.statement_seconds * 1000),
        "lock_timeout": int(limits.lock_seconds * 1000),
        "idle_in_transaction_session_timeout": int(limits.answer_seconds * 1000),
        "timezone": "UTC",
        "random_page_cost": 1.1,  # solid state: a batch looks its rows up by key, and must not read whole tables for it
    }
    engine = create_async_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=limits.pool_size,
        max_overflow=0,
        pool_timeout=limits.pool_seconds,
        pool_recycle=1800,
        hide_parameters=True,
        connect_args={
            "connect_timeout": max(2, int(limits.connect_seconds)),
            "tcp_user_timeout": int(limits.answer_seconds * 1000),
            "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
        },
    )

    def read_only_is_gone(context: Any) -> None:
        if getattr(context.original_exception, "sqlstate", None) == "25006":
            context.is_disconnect = True  # after a failover: leave the old primary

    def take_arrays(connection: Any, _: Any) -> None:
        send_packed(connection.driver_connection)

    event.listen(engine.sync_engine, "handle_error", read_only_is_gone)
    event.listen(engine.sync_engine, "connect", take_arrays)
    return engine


def sqlite_engine(url: str, *, pool_size: int, limits: Limits, read_only: bool) -> AsyncEngine:
    path = make_url(url).database
    if not path or path == ":memory:":
        raise ValueError(f"{url}: a SQLite database of Baton is a file")
    if not read_only:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=limits.pool_seconds,
        hide_parameters=True,
        connect_args={"isolation_level": None, "timeout": limits.lock_seconds},
    )

    def prepare(connection: Any, _: Any) -> None:
        connection.create_function("clock_timestamp", 0, sqlite_now)
        connection.create_function("unhex", 1, lambda value: None if value is None else bytes.fromhex(value))
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"):
            if not (read_only and pragma.startswith("journal_mode")):
                cursor.execute(f"PRAGMA {pragma}")
        if read_only:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    event.listen(engine.sync_engine, "connect", prepare)
    event.listen(engine.sync_engine, "begin", begin)
    return engine
