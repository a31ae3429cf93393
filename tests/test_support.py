"""The fixtures themselves: what every other test rests on."""

from __future__ import annotations

from shared.db import Session
from shared.sql import sql
from tests.support import Databases

COUNT = sql("SELECT count(*) AS positions FROM positions")
INSERT = sql(
    "INSERT INTO positions (topic, partition, next_offset, moved_at) VALUES ('t', 0, 0, clock_timestamp())",
)


async def _insert_and_count(session: Session) -> int:
    await session.execute(INSERT)
    row = await session.first(COUNT)
    assert row is not None
    return int(row.positions)


async def test_a_database_of_a_test_is_migrated_and_empty(databases: Databases) -> None:
    assert await databases.open("spine").run(_insert_and_count) == 1


async def test_the_next_test_gets_another_one(databases: Databases) -> None:
    assert await databases.open("spine").run(_insert_and_count) == 1
