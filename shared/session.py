"""One transaction, as handlers and stores see it: statements, the database's clock, what is to be done at its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy.engine import CursorResult, Row
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.engines import Limits
from shared.heartbeat import beat
from shared.sql import Dialect, Rows, Statement, from_sqlite, sql
from shared.trouble import DatabaseUnavailable, TransactionLost

ALIVE = (TransactionStatus.INTRANS, TransactionStatus.INERROR)  # after an error, the next statement says so itself

NOW = sql("SELECT clock_timestamp() AS now_at")


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
        beat()
        try:
            async with deadline(self._limits.answer_seconds, "a statement"):
                result = await self._connection.execute(clause, bound)
        except DatabaseUnavailable:
            await self._connection.invalidate()
            raise
        self._is_begun = True
        if not result.returns_rows:
            return []
        return _decoded(result) if self.dialect == "sqlite" else list(result.all())

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

    async def finish(self) -> set[str]:
        for work in self._before_commit:
            await work()
        await self._assert_open(TransactionStatus.INTRANS)  # COMMIT of a failed one would be a silent ROLLBACK
        return self._wakes

    async def _assert_open(self, *states: TransactionStatus) -> None:
        """Raise `TransactionLost` unless the transaction that was begun is still the one that is open."""
        if not self._is_begun:
            return
        raw = await self._connection.get_raw_connection()
        driver = raw.driver_connection
        if isinstance(driver, psycopg.AsyncConnection):
            is_open = driver.info.transaction_status in (states or ALIVE)
        else:
            is_open = driver is not None and driver.in_transaction
        if not is_open:
            raise TransactionLost("the transaction ended by itself; it is run again")


@asynccontextmanager
async def deadline(seconds: float, what: str) -> AsyncIterator[None]:
    """Turn waiting longer than so many seconds into `DatabaseUnavailable`."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise DatabaseUnavailable(f"no answer to {what} within {seconds:.0f} s") from error


def _decoded(result: CursorResult[Any]) -> list[Row[Any]]:
    """SQLite's rows with their instants as such."""
    names = tuple(result.keys())
    if not any(name.endswith("_at") for name in names):
        return list(result.all())
    rows = (tuple(from_sqlite(name, value) for name, value in zip(names, row, strict=True)) for row in result)
    decoded: IteratorResult[Any] = IteratorResult(SimpleResultMetaData(names), rows)
    return list(decoded.all())
