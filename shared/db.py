"""The database of a service, and the only place that commits.

`Database.run(work)` runs `work(session)` in one transaction and commits it; trouble that a repetition can cure
(serialization, deadlock, a lost connection; trouble.py) repeats the WHOLE of it. PostgreSQL: a schema per service.
SQLite: a file per service, one writing connection behind a fair queue (engines.py).

Every wait has a limit: connect, pool, lock, statement, and on top a deadline of this process for a server that is gone
without a word.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Protocol, TypeVar

from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, ResourceClosedError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.engines import Limits, postgresql_engine, sqlite_engine
from shared.failpoints import failpoint
from shared.heartbeat import beat
from shared.session import Session, deadline
from shared.sql import Dialect
from shared.trouble import (
    DatabaseError,
    DatabaseUnavailable,
    OutcomeUnknown,
    StatementTimeout,
    TransactionLost,
    Trouble,
    in_short,
    trouble,
)

__all__ = [
    "Database",
    "DatabaseError",
    "DatabaseUnavailable",
    "Limits",
    "OutcomeUnknown",
    "Pinned",
    "Session",
    "StatementTimeout",
    "TransactionLost",
    "trouble",
]

T = TypeVar("T")
Work = Callable[[Session], Awaitable[T]]


class Pinned(Protocol):
    """Runs each given work in a transaction of its own, on one and the same connection; nothing is repeated."""

    async def __call__(self, work: Work[T], /) -> T: ...


READERS = 4  # reading connections of an embedded service: more do not help one process
BACK_OFF_SECONDS = 0.05


class Database:
    """The connections of one service to its database."""

    def __init__(self, url: str, *, service: str, limits: Limits | None = None, read_only: bool = False) -> None:
        self.service = service
        self.limits = limits or Limits()
        self.url = make_url(url)
        self.dialect: Dialect = "sqlite" if self.url.get_backend_name() == "sqlite" else "postgresql"
        self._signals: dict[str, asyncio.Event] = {}
        if self.dialect == "sqlite":
            self._writer = sqlite_engine(url, pool_size=1, limits=self.limits, read_only=read_only)
            self._reader = sqlite_engine(url, pool_size=READERS, limits=self.limits, read_only=True)
            self._turn: AbstractAsyncContextManager[Any] = asyncio.Lock()  # first come, first served
        else:
            self._writer = self._reader = postgresql_engine(url, schema=service, limits=self.limits)
            self._turn = nullcontext()

    async def run(self, work: Work[T], *, attempts: int | None = None) -> T:
        """Run `work(session)` in a transaction and commit it; its result.

        Repeated whole on a conflict or a lost connection, at most `attempts` times. Raises `OutcomeUnknown` when the
        connection broke during COMMIT (not repeated: only the caller knows whether that is safe), `StatementTimeout`,
        `DatabaseUnavailable`; whatever else `work` raises passes unchanged.
        """
        for attempt in range(1, (attempts or self.limits.attempts) + 1):
            beat()
            try:
                return await self._once(work)
            except (DBAPIError, PoolTimeout, ResourceClosedError, DatabaseError) as error:
                if isinstance(error, OutcomeUnknown):
                    raise
                kind = trouble(error)
                if kind is None:
                    raise
                if kind is Trouble.TIMEOUT:
                    raise StatementTimeout(in_short(error)) from error
                if attempt == (attempts or self.limits.attempts):
                    raise DatabaseUnavailable(in_short(error)) from error
            await asyncio.sleep(BACK_OFF_SECONDS * attempt * (0.5 + random.random()))
        raise AssertionError("unreachable")

    async def read(self, work: Work[T]) -> T:
        """Run `work(session)` in a transaction that is rolled back; on SQLite it does not wait for the writer."""
        try:
            async with self._connected(self._reader) as connection:
                await self._begin(connection)
                return await work(Session(connection, self.dialect, self.service, self.limits))
        except (DBAPIError, PoolTimeout, ResourceClosedError) as error:
            match trouble(error):
                case None:
                    raise
                case Trouble.TIMEOUT:
                    raise StatementTimeout(in_short(error)) from error
                case Trouble.CONFLICT | Trouble.UNAVAILABLE:
                    raise DatabaseUnavailable(in_short(error)) from error

    def signal(self, name: str) -> asyncio.Event:
        """Set after each commit of a session that called `wake(name)`; the waiter clears it."""
        return self._signals.setdefault(name, asyncio.Event())

    @asynccontextmanager
    async def pinned(self) -> AsyncIterator[Pinned]:
        """One connection for several transactions: session locks live and die with it. SQLite: the writer's turns."""
        if self.dialect == "sqlite":
            yield self.run
            return
        connection = await self._connect(self._writer)

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
            wakes = await session.finish()
            failpoint("database.before_commit")
            await self._commit(connection)
        except BaseException:
            await _rolled_back(connection)
            raise
        for name in wakes:
            self.signal(name).set()
        return result

    async def _begin(self, connection: AsyncConnection) -> None:
        async with deadline(self.limits.answer_seconds, "BEGIN"):
            await connection.begin()

    async def _connect(self, engine: AsyncEngine) -> AsyncConnection:
        async with deadline(self.limits.connect_seconds + self.limits.pool_seconds, "a connection"):
            return await engine.connect()

    @asynccontextmanager
    async def _connected(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        """A connection of the pool; whatever is left open on it is rolled back on the way out."""
        connection = await self._connect(engine)
        try:
            yield connection
        finally:
            await _returned(connection)

    async def _commit(self, connection: AsyncConnection) -> None:
        try:
            async with deadline(self.limits.answer_seconds, "COMMIT"):
                await connection.commit()
        except DatabaseUnavailable as error:
            await connection.invalidate()
            raise OutcomeUnknown(str(error)) from error
        except DBAPIError as error:
            if self.dialect == "postgresql" and trouble(error) is Trouble.UNAVAILABLE and error.connection_invalidated:
                raise OutcomeUnknown(in_short(error)) from error
            raise


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
