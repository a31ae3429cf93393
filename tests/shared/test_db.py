from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.exc import IntegrityError

from shared.db import Database, DatabaseUnavailable, Limits, OutcomeUnknown, Session, StatementTimeout, TransactionLost
from shared.sql import Statement, sql
from tests.support import Databases

INSERT = sql("INSERT INTO counters (name, n, seen_at, raw) SELECT name, n, seen_at, raw FROM {rows} WHERE true",
             name="text", n="bigint", seen_at="timestamptz", raw="bytea")  # fmt: skip
ON_POSTGRESQL = pytest.mark.parametrize(
    "databases", [pytest.param("postgresql", marks=pytest.mark.postgres)], indirect=True
)
ON_SQLITE = pytest.mark.parametrize("databases", ["sqlite"], indirect=True)
READ = sql("SELECT name, n, seen_at, raw FROM counters ORDER BY name")
LOCK_AND_READ = sql("SELECT n FROM counters WHERE name = 'a' {for_update}")
SET = sql("UPDATE counters SET n = :n WHERE name = 'a'")


@pytest.fixture
async def database(databases: Databases) -> Database:
    opened = databases.open("spine")
    create = sql("CREATE TABLE counters (name text PRIMARY KEY, n bigint, seen_at TIMESTAMPTZ, raw BYTES)")
    if databases.name == "postgresql":
        create = sql("CREATE TABLE counters (name text PRIMARY KEY, n bigint, seen_at TIMESTAMPTZ, raw bytea)")
    await opened.run(lambda session: session.execute(create))
    return opened


async def test_rows_come_back_as_they_went_in(database: Database) -> None:
    async def work(session: Session) -> None:
        now = await session.now()
        rows: list[tuple[object, ...]] = [("a", 1, now, b"\x00\xff"), ("b", None, None, None)]
        await session.execute(INSERT, rows)
        found = await session.execute(READ)
        assert [tuple(row) for row in found] == rows
        assert found[0].seen_at.utcoffset() is not None

    await database.run(work)


async def test_a_statement_over_no_rows_does_nothing(database: Database) -> None:
    await database.run(lambda session: session.execute(INSERT, []))
    assert await database.read(lambda session: session.execute(READ)) == []


async def test_no_increment_is_lost_among_concurrent_read_modify_write_transactions(database: Database) -> None:
    await database.run(lambda session: session.execute(INSERT, [("a", 0, None, None)]))

    async def increment(session: Session) -> None:
        (row,) = await session.execute(LOCK_AND_READ)
        await session.execute(SET, n=row.n + 1)

    await asyncio.gather(*(database.run(increment) for _ in range(100)))
    (row,) = await database.read(lambda session: session.execute(READ))
    assert row.n == 100


async def test_an_exception_leaves_nothing_behind_and_passes_unchanged(database: Database) -> None:
    async def work(session: Session) -> None:
        await session.execute(INSERT, [("a", 1, None, None)])
        raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        await database.run(work)
    assert await database.read(lambda session: session.execute(READ)) == []


async def test_an_error_of_the_data_is_not_repeated(database: Database) -> None:
    runs = 0

    async def work(session: Session) -> None:
        nonlocal runs
        runs += 1
        await session.execute(INSERT, [("a", 1, None, None), ("a", 2, None, None)])

    with pytest.raises(IntegrityError):
        await database.run(work)
    assert runs == 1


async def test_a_wake_reaches_the_waiter_only_after_the_commit(database: Database) -> None:
    signal = database.signal("outbox")

    async def work(session: Session) -> None:
        session.wake("outbox")
        assert not signal.is_set()

    await database.run(work)
    assert signal.is_set()


async def test_a_cancelled_transaction_gives_its_connection_back(database: Database) -> None:
    started = asyncio.Event()

    async def work(session: Session) -> None:
        await session.execute(INSERT, [("a", 1, None, None)])
        started.set()
        await asyncio.sleep(60)

    for _ in range(15):  # more than the pool holds
        started.clear()
        task = asyncio.create_task(database.run(work))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await database.read(lambda session: session.execute(READ)) == []


@ON_POSTGRESQL
async def test_a_deadlock_is_run_again_whole(databases: Databases, database: Database) -> None:
    await database.run(lambda session: session.execute(INSERT, [("a", 0, None, None), ("b", 0, None, None)]))
    both_hold_one = asyncio.Barrier(2)
    runs = 0

    async def take(first: str, second: str) -> None:
        is_first_run = True

        async def work(session: Session) -> None:
            nonlocal is_first_run, runs
            runs += 1
            await session.execute(sql("UPDATE counters SET n = n + 1 WHERE name = :name"), name=first)
            if is_first_run:
                is_first_run = False
                await both_hold_one.wait()
            await session.execute(sql("UPDATE counters SET n = n + 1 WHERE name = :name"), name=second)

        await database.run(work)

    await asyncio.gather(take("a", "b"), take("b", "a"))
    assert runs == 3
    assert [row.n for row in await database.read(lambda session: session.execute(READ))] == [2, 2]


@ON_POSTGRESQL
async def test_a_lost_connection_is_run_again_and_one_lost_in_commit_is_said(
    databases: Databases, database: Database
) -> None:
    kill = sql("SELECT pg_terminate_backend(:pid)")
    pid = sql("SELECT pg_backend_pid() AS pid")
    runs = 0

    async def killed_once(session: Session) -> None:
        nonlocal runs
        runs += 1
        (row,) = await session.execute(pid)
        if runs == 1:
            await database.run(lambda other: other.execute(kill, pid=row.pid))
        await session.execute(INSERT, [("a", 1, None, None)])

    await database.run(killed_once)
    assert runs == 2

    async def killed_at_commit(session: Session) -> None:
        (row,) = await session.execute(pid)

        async def kill_now() -> None:
            await database.run(lambda other: other.execute(kill, pid=row.pid))

        session.before_commit(kill_now)

    with pytest.raises(OutcomeUnknown):
        await database.run(killed_at_commit)


@ON_POSTGRESQL
async def test_a_statement_that_takes_too_long_is_a_time_out(databases: Databases) -> None:
    limited = Database(databases.url("spine"), service="spine", limits=Limits(statement_seconds=0.2))
    with pytest.raises(StatementTimeout):
        await limited.run(lambda session: session.execute(sql("SELECT pg_sleep(5)")))
    await limited.close()


@ON_POSTGRESQL
async def test_a_read_only_server_counts_as_unavailable(databases: Databases, database: Database) -> None:
    await database.run(lambda session: session.execute(sql("SET TRANSACTION READ ONLY")))

    async def work(session: Session) -> None:
        await session.execute(sql("SET TRANSACTION READ ONLY"))
        await session.execute(INSERT, [("a", 1, None, None)])

    with pytest.raises(DatabaseUnavailable):
        await database.run(work, attempts=2)


async def test_a_transaction_that_ended_by_itself_is_noticed_before_the_next_statement(
    databases: Databases, database: Database
) -> None:
    end = Statement(sql("COMMIT").postgresql, sql("COMMIT").sqlite)

    async def work(session: Session) -> None:
        await session.execute(INSERT, [("a", 1, None, None)])
        await session.execute(end)
        await session.execute(SET, n=2)

    with pytest.raises((TransactionLost, DatabaseUnavailable)):
        await database.run(work, attempts=1)


@ON_SQLITE
async def test_a_full_disk_is_unavailability_and_keeps_what_was_there(databases: Databases, database: Database) -> None:
    await database.run(lambda session: session.execute(INSERT, [("a", 1, None, None)]))

    async def fill(session: Session) -> None:
        pages = await session.execute(sql("PRAGMA page_count"))
        await session.execute(sql(f"PRAGMA max_page_count = {pages[0][0] + 2}"))
        await session.execute(INSERT, [("big", 1, None, b"x" * 1_000_000)])

    with pytest.raises(DatabaseUnavailable):
        await database.run(fill, attempts=2)
    assert [row.name for row in await database.read(lambda session: session.execute(READ))] == ["a"]


@ON_POSTGRESQL
async def test_a_transaction_that_idled_too_long_is_unavailability_not_a_fault_of_the_data(
    databases: Databases,
) -> None:
    impatient = Database(databases.url("spine"), service="spine")
    set_time_out = sql("SET LOCAL idle_in_transaction_session_timeout = 100")

    async def slow(session: Session) -> None:
        await session.execute(set_time_out)
        await asyncio.sleep(0.5)
        await session.execute(READ)

    with pytest.raises(DatabaseUnavailable):
        await impatient.run(slow, attempts=1)
    await impatient.close()
