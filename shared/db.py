"""The database of a service, and the only place that commits.

`Database.run(work)` runs `work(session)` in one transaction and commits it; trouble that a repetition can cure
(serialization, deadlock, a lost connection) repeats the WHOLE of it. PostgreSQL: psycopg 3, a schema per service.
SQLite: a file per service, WAL, one writing connection behind a fair queue, `BEGIN IMMEDIATE`, because a deferred
transaction loses updates or fails at its first write.

Every wait has a limit: connect, pool, lock, statement, and on top a deadline of this process for a server that is gone
without a word.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.types.array import ListBinaryDumper
from sqlalchemy import event
from sqlalchemy.engine import Row, make_url
from sqlalchemy.exc import DBAPIError, ResourceClosedError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from shared.failpoints import failpoint
from shared.sql import Dialect, Rows, Statement, from_sqlite, sql, sqlite_now

T = TypeVar("T")
Work = Callable[["Session"], Awaitable[T]]


class Pinned(Protocol):
    """Runs each given work in a transaction of its own, on one and the same connection; nothing is repeated."""

    async def __call__(self, work: Work[T], /) -> T: ...


READERS = 4  # reading connections of an embedded service: more do not help one process
BACK_OFF_SECONDS = 0.05

NOW = sql("SELECT clock_timestamp() AS now_at")


class DatabaseError(Exception):
    """Trouble of the database, not of the data."""


class DatabaseUnavailable(DatabaseError):
    """Not reachable, not writable, full or overloaded. Nothing was committed; try again later."""


class OutcomeUnknown(DatabaseUnavailable):
    """The connection was lost during COMMIT: the transaction may or may not stand."""


class StatementTimeout(DatabaseError):
    """A statement ran longer than allowed. Nothing was committed."""


class TransactionLost(DatabaseUnavailable):
    """The transaction that was begun is no longer the one that is open (SQLite ends one itself on a full disk)."""


class Trouble(StrEnum):
    """What kind of repetition helps."""

    CONFLICT = "conflict"  # at once
    UNAVAILABLE = "unavailable"  # later
    TIMEOUT = "timeout"  # with less


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


class Session:
    """One transaction, as handlers and stores see it. It has no commit."""

    def __init__(self, connection: AsyncConnection, dialect: Dialect, service: str, limits: Limits) -> None:
        self.dialect = dialect
        self.service = service
        self._connection = connection
        self._limits = limits
        self._buffers: dict[str, list[Any]] = {}
        self._before_commit: list[Callable[[], Awaitable[None]]] = []
        self._wakes: set[str] = set()
        self._instant: datetime | None = None
        self._is_begun = dialect == "sqlite"  # psycopg begins with the first statement

    async def execute(self, statement: Statement, rows: Rows | None = None, **parameters: Any) -> list[Row[Any]]:
        """Run one statement; its result rows, if it returns any. Raises `DatabaseError`; data errors pass unchanged."""
        clause, bound = statement.bind(self.dialect, rows, parameters)
        await self._assert_open()
        try:
            async with asyncio.timeout(self._limits.answer_seconds):
                result = await self._connection.execute(clause, bound)
        except TimeoutError as error:
            await self._connection.invalidate()
            raise DatabaseUnavailable("no answer from the database") from error
        self._is_begun = True
        if not result.returns_rows:
            return []
        found = result.all()
        return [_decoded(row) for row in found] if self.dialect == "sqlite" else list(found)

    async def first(self, statement: Statement, rows: Rows | None = None, **parameters: Any) -> Row[Any] | None:
        """The first result row, or None."""
        found = await self.execute(statement, rows, **parameters)
        return found[0] if found else None

    async def now(self) -> datetime:
        """The database's clock, this instant (not the transaction's start)."""
        (row,) = await self.execute(NOW)
        self._instant = row.now_at
        return self.instant

    @property
    def instant(self) -> datetime:
        """What `now()` last answered in this transaction."""
        if self._instant is None:
            raise RuntimeError("ask session.now() first")
        return self._instant

    def buffer(self, name: str) -> list[Any]:
        """A list that lives as long as this transaction."""
        return self._buffers.setdefault(name, [])

    def before_commit(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run last in the transaction."""
        self._before_commit.append(work)

    def wake(self, name: str) -> None:
        """After the commit, wake whoever waits for `Database.signal(name)`. A hint: polling is the truth."""
        self._wakes.add(name)

    async def _finish(self) -> set[str]:
        for work in self._before_commit:
            await work()
        await self._assert_open()
        return self._wakes

    async def _assert_open(self) -> None:
        if not self._is_begun:
            return
        raw = await self._connection.get_raw_connection()
        driver = raw.driver_connection
        if isinstance(driver, psycopg.AsyncConnection):
            is_open = driver.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR)
        else:
            is_open = driver is not None and driver.in_transaction
        if not is_open:
            raise TransactionLost("the transaction ended by itself; it is run again")


class Database:
    """The connections of one service to its database."""

    def __init__(self, url: str, *, service: str, limits: Limits | None = None, read_only: bool = False) -> None:
        self.service = service
        self.limits = limits or Limits()
        self.url = make_url(url)
        self.dialect: Dialect = "sqlite" if self.url.get_backend_name() == "sqlite" else "postgresql"
        self._signals: dict[str, asyncio.Event] = {}
        if self.dialect == "sqlite":
            self._writer = _sqlite_engine(url, pool_size=1, limits=self.limits, read_only=read_only)
            self._reader = _sqlite_engine(url, pool_size=READERS, limits=self.limits, read_only=True)
            self._turn: AbstractAsyncContextManager[Any] = asyncio.Lock()  # first come, first served
        else:
            self._writer = self._reader = _postgresql_engine(url, schema=service, limits=self.limits)
            self._turn = nullcontext()

    async def run(self, work: Work[T], *, attempts: int | None = None) -> T:
        """Run `work(session)` in a transaction and commit it; its result.

        Repeated whole on a conflict or a lost connection, at most `attempts` times. Raises `OutcomeUnknown` when the
        connection broke during COMMIT (not repeated: only the caller knows whether that is safe), `StatementTimeout`,
        `DatabaseUnavailable`; whatever else `work` raises passes unchanged.
        """
        for attempt in range(1, (attempts or self.limits.attempts) + 1):
            try:
                return await self._once(work)
            except (DBAPIError, PoolTimeout, ResourceClosedError, DatabaseError, OSError) as error:
                if isinstance(error, OutcomeUnknown):
                    raise
                kind = trouble(error)
                if kind is None:
                    raise
                if kind is Trouble.TIMEOUT:
                    raise StatementTimeout(_short(error)) from error
                if attempt == (attempts or self.limits.attempts):
                    raise DatabaseUnavailable(_short(error)) from error
            await asyncio.sleep(BACK_OFF_SECONDS * attempt * (0.5 + random.random()))
        raise AssertionError("unreachable")

    async def read(self, work: Work[T]) -> T:
        """Run `work(session)` in a transaction that is rolled back; on SQLite it does not wait for the writer."""
        try:
            async with self._connected(self._reader) as connection:
                await self._begin(connection)
                return await work(Session(connection, self.dialect, self.service, self.limits))
        except (DBAPIError, PoolTimeout, ResourceClosedError, OSError) as error:
            match trouble(error):
                case None:
                    raise
                case Trouble.TIMEOUT:
                    raise StatementTimeout(_short(error)) from error
                case Trouble.CONFLICT | Trouble.UNAVAILABLE:
                    raise DatabaseUnavailable(_short(error)) from error

    def signal(self, name: str) -> asyncio.Event:
        """Set after each commit of a session that called `wake(name)`; the waiter clears it."""
        return self._signals.setdefault(name, asyncio.Event())

    @asynccontextmanager
    async def pinned(self) -> AsyncIterator[Pinned]:
        """One connection for several transactions: session locks live and die with it. SQLite: the writer's turns."""
        if self.dialect == "sqlite":
            yield self.run
            return
        async with asyncio.timeout(self.limits.connect_seconds + self.limits.pool_seconds):
            connection = await self._writer.connect()

        async def run(work: Work[T]) -> T:
            return await self._transact(connection, work)

        try:
            yield run
        finally:
            await connection.invalidate()  # closes it, and with it its locks
            await connection.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._writer.dispose()
        if self._reader is not self._writer:
            await self._reader.dispose()

    async def _once(self, work: Work[T]) -> T:
        async with self._turn, self._connected(self._writer) as connection:
            return await self._transact(connection, work)

    async def _transact(self, connection: AsyncConnection, work: Work[T]) -> T:
        """Begin, work, commit; rolled back on any exception."""
        try:
            await self._begin(connection)
            session = Session(connection, self.dialect, self.service, self.limits)
            result = await work(session)
            wakes = await session._finish()
            failpoint("database.before_commit")
            await self._commit(connection)
        except BaseException:
            await _rolled_back(connection)
            raise
        for name in wakes:
            self.signal(name).set()
        return result

    async def _begin(self, connection: AsyncConnection) -> None:
        async with asyncio.timeout(self.limits.answer_seconds):
            await connection.begin()

    @asynccontextmanager
    async def _connected(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        """A connection of the pool; whatever is left open on it is rolled back on the way out."""
        async with asyncio.timeout(self.limits.connect_seconds + self.limits.pool_seconds):
            connection = await engine.connect()
        try:
            yield connection
        finally:
            await _returned(connection)

    async def _commit(self, connection: AsyncConnection) -> None:
        try:
            async with asyncio.timeout(self.limits.answer_seconds):
                await connection.commit()
        except TimeoutError as error:
            await connection.invalidate()
            raise OutcomeUnknown("no answer to COMMIT") from error
        except DBAPIError as error:
            if self.dialect == "postgresql" and trouble(error) is Trouble.UNAVAILABLE and error.connection_invalidated:
                raise OutcomeUnknown(_short(error)) from error
            raise


def trouble(error: BaseException) -> Trouble | None:
    """What kind of trouble of the database this is; None: an error of the data or a bug."""
    if isinstance(error, (StatementTimeout,)):
        return Trouble.TIMEOUT
    if isinstance(error, (DatabaseError, PoolTimeout, ResourceClosedError, OSError)):
        return Trouble.UNAVAILABLE
    if not isinstance(error, DBAPIError):
        return None
    original = error.orig
    if isinstance(original, sqlite3.Error):
        return _sqlite_trouble(original)
    state = getattr(original, "sqlstate", None)
    if state is None:
        return (
            Trouble.UNAVAILABLE
            if error.connection_invalidated or isinstance(original, psycopg.OperationalError)
            else None
        )
    if state == "57014":
        return Trouble.TIMEOUT
    if state[:2] == "40":
        return Trouble.CONFLICT
    if state[:2] in ("08", "53", "58") or state[:3] == "57P" or state in ("55P03", "25006"):
        return Trouble.UNAVAILABLE
    return None


def _sqlite_trouble(error: sqlite3.Error) -> Trouble | None:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Trouble.CONFLICT
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        return Trouble.UNAVAILABLE
    return None


def _short(error: BaseException) -> str:
    """The error's first line, without parameters: values are personal data."""
    original = getattr(error, "orig", None) or error
    return f"{type(original).__name__}: {str(original).splitlines()[0] if str(original) else 'no message'}"


def _decoded(row: Row[Any]) -> Row[Any]:
    fields: Sequence[str] = row._fields
    if not any(name.endswith("_at") for name in fields):
        return row
    values = tuple(from_sqlite(name, value) for name, value in zip(fields, row, strict=True))
    return Row(row._parent, None, row._key_to_index, values)


async def _rolled_back(connection: AsyncConnection) -> None:
    """Roll back, also while this task is being cancelled; a connection that cannot is thrown away."""
    try:
        await asyncio.shield(asyncio.wait_for(connection.rollback(), timeout=5.0))
    except (DBAPIError, TimeoutError, OSError):
        await connection.invalidate()


async def _returned(connection: AsyncConnection) -> None:
    """Give a connection back even while this task is being cancelled; a broken one is thrown away."""
    try:
        await asyncio.shield(asyncio.wait_for(connection.close(), timeout=5.0))
    except (DBAPIError, TimeoutError, OSError):
        await connection.invalidate()


def _postgresql_engine(url: str, *, schema: str, limits: Limits) -> AsyncEngine:
    options = {
        "search_path": schema,
        "statement_timeout": int(limits.statement_seconds * 1000),
        "lock_timeout": int(limits.lock_seconds * 1000),
        "idle_in_transaction_session_timeout": int(limits.answer_seconds * 1000),
        "timezone": "UTC",
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

    def send_arrays_binary(connection: Any, _: Any) -> None:
        """1000 JSON texts as an array: 0.9 ms of CPU instead of 13, spent on escaping."""
        connection.driver_connection.adapters.register_dumper(list, ListBinaryDumper)

    event.listen(engine.sync_engine, "handle_error", read_only_is_gone)
    event.listen(engine.sync_engine, "connect", send_arrays_binary)
    return engine


def _sqlite_engine(url: str, *, pool_size: int, limits: Limits, read_only: bool) -> AsyncEngine:
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
