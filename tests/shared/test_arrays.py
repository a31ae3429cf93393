"""Columns of values reach the database as they are, packed by us on PostgreSQL, as JSON on SQLite."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from psycopg.errors import DataError
from sqlalchemy.exc import DBAPIError

from shared.sql import sql
from tests.support import Databases

ECHO = sql(
    "SELECT word, number, share, is_so, seen_at, raw FROM {rows} ORDER BY row_number",
    word="text",
    number="bigint",
    share="float8",
    is_so="boolean",
    seen_at="timestamptz",
    raw="bytea",
)
INDIA = timezone(timedelta(hours=5, minutes=30))
MOMENT = datetime(2026, 3, 10, 16, 0, 0, 123457, tzinfo=UTC)

Values = tuple[object, ...]


async def echo(databases: Databases, rows: list[Values]) -> list[Values]:
    found = await databases.open("spine").read(lambda session: session.execute(ECHO, rows))
    return [
        (row.word, row.number, row.share, None if row.is_so is None else bool(row.is_so), *row[4:]) for row in found
    ]


async def test_values_of_every_kind_come_back_as_they_went_in(databases: Databases) -> None:
    rows: list[Values] = [
        ("", 0, 0.0, False, MOMENT, b""),
        (
            'naïve \U0001f916 {"a,b\\"}',
            -(2**63),
            -0.1,
            True,
            datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
            b"\x00\xff",
        ),
        ("NULL", 2**63 - 1, 1e300, True, datetime(1, 1, 1, tzinfo=UTC), b"\\x00"),
        (None, None, None, None, None, None),
    ]
    assert await echo(databases, rows) == rows


async def test_columns_without_any_value_keep_their_rows(databases: Databases) -> None:
    assert await echo(databases, [(None,) * 6] * 3) == [(None,) * 6] * 3
    assert await echo(databases, []) == []


async def test_an_instant_is_the_same_one_in_any_zone(databases: Databases) -> None:
    ((*_, seen_at, _),) = await echo(databases, [("a", 1, 1.0, True, MOMENT.astimezone(INDIA), b"")])
    assert seen_at == MOMENT


@pytest.mark.parametrize("databases", [pytest.param("postgresql", marks=pytest.mark.postgres)], indirect=True)
async def test_text_that_the_database_cannot_hold_is_an_error_of_the_data(databases: Databases) -> None:
    with pytest.raises(DBAPIError) as caught:
        await echo(databases, [("a\x00b", 1, 1.0, True, MOMENT, b"")])
    assert isinstance(caught.value.orig, DataError)
