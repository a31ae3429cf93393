"""What no database can keep: refused at the edge, and by the last line where the edge did not look."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from structlog.testing import capture_logs

from shared.db import Database, Session
from shared.given import FIRST_INSTANT, LAST_INSTANT, Instant, Text, is_clean, is_clean_address
from shared.middleware import CleanAddress, Traced
from shared.sql import sql
from shared.web import add_problem_handlers
from tests.support import Databases

pytestmark = pytest.mark.slow

BY_TEXT = sql("SELECT 1 AS one WHERE CAST(:given AS text) = 'x'")
BY_INTEGER = sql("SELECT 1 AS one WHERE CAST(:given AS bigint) = 1")
BY_ROWS = sql("SELECT given FROM {rows} WHERE given = 1", given="bigint")


class Note(BaseModel):
    text: Text = ""
    at: Instant = FIRST_INSTANT


def app_over(database: Database) -> FastAPI:
    app = FastAPI()
    add_problem_handlers(app)
    app.add_middleware(Traced)

    @app.post("/text")
    async def text(given: dict[str, str]) -> None:
        await ask(database, given["text"])

    @app.post("/integer")
    async def integer(given: dict[str, int]) -> None:
        await database.run(lambda session: session.execute(BY_INTEGER, given=given["integer"]))

    @app.post("/rows")
    async def rows(given: dict[str, int]) -> None:
        await database.read(lambda session: session.execute(BY_ROWS, rows=[(given["integer"],)]))

    @app.get("/our-own-overflow")
    async def overflow() -> None:
        datetime.min.replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=-1)))

    @app.get("/our-own-encoding")
    async def encoding() -> None:
        "\ud800".encode()

    @app.get("/our-own-division")
    async def division() -> None:
        await database.read(lambda session: session.execute(sql("SELECT 1 / CAST('0' AS integer) AS nothing")))

    return app


async def ask(database: Database, text: str) -> None:
    async def work(session: Session) -> None:
        await session.execute(BY_TEXT, given=text)

    await database.read(work)


@pytest.fixture
async def client(databases: Databases) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app_over(databases.open("spine")))
    async with httpx.AsyncClient(transport=transport, base_url="http://baton") as client:
        yield client


@pytest.fixture
async def kind(databases: Databases) -> str:
    return databases.name


async def test_what_a_database_refuses_is_a_400_that_is_logged_without_the_value(
    client: httpx.AsyncClient, kind: str
) -> None:
    refused: list[tuple[str, Any]] = [("/integer", {"integer": 10**30})]
    if kind == "postgresql":
        refused += [("/text", {"text": "canary\x00"}), ("/rows", {"integer": 10**30})]
    for path, body in refused:
        with capture_logs() as lines:
            answer = await client.post(path, json=body)
        assert (answer.status_code, answer.json()["type"]) == (400, "/problems/value-refused"), (path, answer.text)
        (line,) = lines
        assert line["event"] == "value_refused"
        assert line["place"].startswith("tests.shared.test_hostile_requests:")
        assert "canary" not in str(lines)
        assert str(10**30) not in str(lines)


async def test_half_a_surrogate_pair_that_reaches_a_statement_is_a_400(databases: Databases) -> None:
    database = databases.open("spine")
    app = app_over(database)

    @app.get("/half")
    async def half() -> None:
        await ask(database, "\ud800")

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://baton") as client:
        answer = await client.get("/half")
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/value-refused")


async def test_an_overflow_of_our_own_stays_our_error(client: httpx.AsyncClient, kind: str) -> None:
    assert (await client.get("/our-own-overflow")).status_code == 500
    assert (await client.get("/our-own-encoding")).status_code == 500
    if kind == "postgresql":  # SQLite divides by zero in silence
        assert (await client.get("/our-own-division")).status_code == 500


async def test_an_address_is_judged_as_it_came() -> None:
    reached: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("the body is not asked for")

    for raw_path, query in ((b"/%FF", b""), (b"/", b"a=%C0%80"), (b"/", b"a=\xff"), (None, b"a=%ED%B0%80")):
        scope: Any = {"type": "http", "path": "/\ufffd", "raw_path": raw_path, "query_string": query, "headers": []}
        await CleanAddress(app)(scope, receive, send)
        assert sent[-2]["status"] == 400
    assert reached == []
    await CleanAddress(app)({"type": "http", "path": "/é", "query_string": b"a=%C3%A9+b"}, receive, send)
    await CleanAddress(app)({"type": "lifespan", "path": "a lifespan has none"}, receive, send)
    assert len(reached) == 2


any_text = st.text(st.characters(exclude_categories=()))


@given(any_text)
def test_clean_text_is_what_utf8_can_write_without_nul(text: str) -> None:
    encoded = text.encode("utf-8", "surrogatepass")
    can_be_kept = b"\x00" not in encoded and text.encode("utf-8", "ignore") == encoded
    assert is_clean(text) == can_be_kept
    assert is_clean_address("".join(f"%{byte:02x}" for byte in encoded).encode()) == can_be_kept


@pytest.mark.parametrize("text", ["\x00", "a\x00b", "\ud800", "\udfffa"])
def test_a_model_takes_no_text_that_cannot_be_kept(text: str) -> None:
    with pytest.raises(ValidationError):
        Note(text=text)


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1969-12-31T23:59:59Z"])
def test_a_model_takes_no_instant_out_of_range(at: str) -> None:
    with pytest.raises(ValidationError, match="from 1970 on and before 2200"):
        Note.model_validate({"at": at})


def test_the_range_of_instants_begins_with_its_first_and_ends_before_its_last() -> None:
    assert Note(at=FIRST_INSTANT).at == FIRST_INSTANT
    assert Note(at=LAST_INSTANT - timedelta(seconds=1)).at < LAST_INSTANT
    with pytest.raises(ValidationError):
        Note(at=LAST_INSTANT)
