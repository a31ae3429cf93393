"""A repeated request has one effect and one answer (shared/idempotency.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

import pytest

from shared.db import Database, Session
from shared.idempotency import Answer, KeyReused, once, request_hash
from shared.sql import sql
from tests.support import Databases

CREATE = sql("CREATE TABLE effects (name text)")
EFFECT = sql("INSERT INTO effects (name) VALUES ('done')")
EFFECTS = sql("SELECT count(*) AS total FROM effects")
KEYS = sql("SELECT key FROM idempotency ORDER BY key")
AGE = sql("UPDATE idempotency SET created_at = :at")
ACCEPT = request_hash("POST", "/v1/handoffs/handoff_1/accept", b'{"by": "ana"}')
REJECT = request_hash("POST", "/v1/handoffs/handoff_1/reject", b'{"by": "ana"}')


@pytest.fixture
async def database(databases: Databases) -> Database:
    database = databases.open("spine")
    await database.run(lambda session: session.execute(CREATE))
    return database


async def request(
    database: Database,
    key: str | None,
    *,
    hash: str = ACCEPT,
    scope: str = "crm",
    fails: bool = False,
    takes: Callable[[], Awaitable[None]] | None = None,
) -> Answer:
    """One request with the effect of one row."""

    async def work(session: Session) -> Answer:
        async def effect() -> Answer:
            await session.execute(EFFECT)
            if takes is not None:
                await takes()
            if fails:
                raise LookupError("refused")
            return Answer(200, {"state": "accepted"})

        return await once(session, scope=scope, key=key, request_hash=hash, work=effect)

    return await database.run(work)


async def effects(database: Database) -> int:
    row = await database.read(lambda session: session.first(EFFECTS))
    assert row is not None
    return int(row.total)


async def test_a_repeat_gets_the_first_answer_and_has_no_second_effect(database: Database) -> None:
    first = await request(database, "k1")
    repeat = await request(database, "k1")
    assert (first.status, first.body) == (repeat.status, repeat.body) == (200, {"state": "accepted"})
    assert (first.is_repeat, repeat.is_repeat) == (False, True)
    assert await effects(database) == 1


async def test_another_request_under_the_same_key_is_refused(database: Database) -> None:
    await request(database, "k1")
    with pytest.raises(KeyReused) as refused:
        await request(database, "k1", hash=REJECT)
    assert refused.value.status == 422
    assert await effects(database) == 1


async def test_keys_belong_to_their_caller(database: Database) -> None:
    await request(database, "k1", scope="crm")
    await request(database, "k1", scope="slack", hash=REJECT)
    assert await effects(database) == 2


async def test_without_a_key_every_request_counts(database: Database) -> None:
    await request(database, None)
    await request(database, None)
    assert await effects(database) == 2


async def test_a_refused_request_leaves_its_key_free(database: Database) -> None:
    with pytest.raises(LookupError):
        await request(database, "k1", fails=True)
    assert not (await request(database, "k1")).is_repeat
    assert await effects(database) == 1


async def test_ten_repeats_at_once_have_one_effect(database: Database) -> None:
    answers = await asyncio.gather(*(request(database, "k1", takes=partial(asyncio.sleep, 0.05)) for _ in range(10)))
    assert sorted(answer.is_repeat for answer in answers) == [False] + [True] * 9
    assert await effects(database) == 1


async def test_a_repeat_that_waited_for_a_first_that_failed_does_the_work(database: Database) -> None:
    began = asyncio.Event()

    async def a_while() -> None:
        began.set()
        await asyncio.sleep(0.2)

    first = asyncio.create_task(request(database, "k1", fails=True, takes=a_while))
    await began.wait()
    repeat = await request(database, "k1")
    with pytest.raises(LookupError):
        await first
    assert not repeat.is_repeat
    assert await effects(database) == 1


async def test_answers_older_than_a_day_are_forgotten_as_new_ones_come(database: Database) -> None:
    await request(database, "old")
    now = await database.run(lambda session: session.now())
    await database.run(lambda session: session.execute(AGE, at=now - timedelta(hours=25)))
    await request(database, "new")
    kept = await database.read(lambda session: session.execute(KEYS))
    assert [row.key for row in kept] == ["new"]
