"""HTTP: every failure is a problem with a stable type, bodies are bounded, a trace is taken and answered."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from starlette.types import Message

from shared.db import DatabaseUnavailable
from shared.middleware import BoundedBody, Traced
from shared.security import Keyring, Principal, new_key
from shared.telemetry import trace_id
from shared.web import (
    Problem,
    add_problem_handlers,
    decode_cursor,
    encode_cursor,
    etag,
    if_match,
    page,
    requires,
    version_changed,
)

LIMIT_BYTES = 1000
SMALL_BYTES = 10
READER, READER_ENTRY = new_key(["leads:read"])
WRITER, WRITER_ENTRY = new_key(["activities:write"])


class Robot(BaseModel):
    arms: int


def routes(keyring: Keyring) -> APIRouter:
    router = APIRouter()

    @router.post("/robots")
    async def build_robot(robot: Robot) -> dict[str, int]:
        return {"arms": robot.arms}

    @router.get("/leads/{lead_id}")
    async def lead(lead_id: str, caller: Principal = Depends(requires(keyring, "leads:read"))) -> dict[str, str]:
        return {"lead": lead_id, "caller": caller.id}

    @router.get("/trace")
    async def trace() -> dict[str, str | None]:
        return {"trace_id": trace_id()}

    @router.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError("ana@acme.example divided")

    @router.get("/down")
    async def down() -> None:
        raise DatabaseUnavailable("db.internal:5432")

    @router.post("/raw/small")
    @router.post("/raw")
    async def raw(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    @router.post("/accept")
    async def accept(request: Request) -> dict[str, int]:
        expected = if_match(request)
        if expected != 3:
            raise version_changed(3)
        return {"version": expected}

    @router.get("/refused")
    async def refused() -> None:
        raise Problem(422, "/problems/unknown-reason", "Unknown reason", "no such", allowed=["no_budget"])

    return router


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    add_problem_handlers(app)
    app.add_middleware(BoundedBody, limit=LIMIT_BYTES, limits={"/raw/small": SMALL_BYTES, "/raw": LIMIT_BYTES * 2})
    app.add_middleware(Traced)
    app.include_router(routes(Keyring([READER_ENTRY, WRITER_ENTRY])))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://baton") as client:
        yield client


def problem(answer: httpx.Response, status: int, type: str) -> dict[str, object]:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, object] = answer.json()
    assert (body["status"], body["type"]) == (status, type)
    return body


async def test_a_problem_carries_its_members(client: httpx.AsyncClient) -> None:
    body = problem(await client.get("/refused"), 422, "/problems/unknown-reason")
    assert body["allowed"] == ["no_budget"]


async def test_an_unknown_path_and_a_wrong_method_are_problems(client: httpx.AsyncClient) -> None:
    problem(await client.get("/nowhere"), 404, "/problems/not-found")
    answer = await client.get("/robots")
    problem(answer, 405, "/problems/method-not-allowed")
    assert answer.headers["allow"] == "POST"


async def test_an_invalid_body_is_answered_with_the_place_and_without_the_value(client: httpx.AsyncClient) -> None:
    answer = await client.post("/robots", json={"arms": "ana@acme.example"})
    body = problem(answer, 422, "/problems/invalid-request")
    assert "body.arms" in str(body["detail"])
    assert "ana@acme" not in answer.text


@pytest.mark.parametrize("body", [b"{", b'{"arms": ' + b"[" * 900, b"\xff\xfe", b'"\\ud800"'])
async def test_a_body_that_is_no_json_is_the_senders_problem(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post("/robots", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_database_that_is_away_is_503_and_says_nothing_of_itself(client: httpx.AsyncClient) -> None:
    answer = await client.get("/down")
    problem(answer, 503, "/problems/unavailable")
    assert answer.headers["retry-after"] == "1"
    assert "db.internal" not in answer.text


@pytest.mark.slow  # a traceback with source lines
async def test_an_unforeseen_error_is_a_bare_500_with_the_trace_it_is_logged_under(client: httpx.AsyncClient) -> None:
    answer = await client.get("/broken")
    body = problem(answer, 500, "/problems/internal-error")
    assert body["trace_id"] == answer.headers["traceparent"].split("-")[1]
    assert "acme" not in answer.text
    assert "ZeroDivision" not in answer.text


async def test_the_senders_trace_is_continued_with_a_span_of_our_own(client: httpx.AsyncClient) -> None:
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = await client.get("/trace", headers={"traceparent": given})
    assert answer.json() == {"trace_id": "0af7651916cd43dd8448eb211c80319c"}
    assert answer.headers["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c-")
    assert answer.headers["traceparent"] != given


@pytest.mark.parametrize(
    "given", ["", "nonsense", f"00-{'0' * 32}-b7ad6b7169203331-01", f"ff-{'1' * 32}-{'2' * 16}-01"]
)
async def test_a_malformed_trace_is_replaced(client: httpx.AsyncClient, given: str) -> None:
    answer = await client.get("/trace", headers={"traceparent": given})
    assert answer.headers["traceparent"].split("-")[1] == answer.json()["trace_id"] != "0" * 32


async def test_a_key_with_the_scope_passes(client: httpx.AsyncClient) -> None:
    answer = await client.get("/leads/lead_1", headers={"authorization": f"Bearer {READER}"})
    assert answer.json() == {"lead": "lead_1", "caller": READER.split("_")[1]}


@pytest.mark.parametrize(
    ("authorization", "status", "type"),
    [
        (None, 401, "/problems/key-missing"),
        ("Basic YTpi", 401, "/problems/key-missing"),
        ("Bearer", 401, "/problems/key-missing"),
        ("Bearer nobody", 401, "/problems/key-wrong"),
        (f"Bearer {READER[:-1]}", 401, "/problems/key-wrong"),
        (f"Bearer {WRITER}", 403, "/problems/scope-missing"),
    ],
)
async def test_without_the_right_key_nobody_passes(
    client: httpx.AsyncClient, authorization: str | None, status: int, type: str
) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    answer = await client.get("/leads/lead_1", headers=headers)
    problem(answer, status, type)
    assert ("www-authenticate" in answer.headers) == (status == 401)


async def test_a_refused_key_is_logged_by_its_id_alone(
    client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    stolen, _ = new_key(["admin"], name="ops")
    await client.get("/leads/lead_1", headers={"authorization": f"Bearer {stolen}"})
    printed = "".join(capsys.readouterr())
    assert "key_id=ops" in printed.replace("\x1b[36m", "").replace("\x1b[0m", "").replace("\x1b[35m", "")
    assert stolen.split("_", 2)[2] not in printed


async def test_a_body_at_the_limit_passes_and_one_byte_more_does_not(client: httpx.AsyncClient) -> None:
    assert (await client.post("/raw", content=b"x" * LIMIT_BYTES)).json() == {"bytes": LIMIT_BYTES}
    problem(await client.post("/raw", content=b"x" * (LIMIT_BYTES + 1)), 413, "/problems/body-too-large")


async def test_a_path_has_the_smallest_limit_that_is_set_for_it(client: httpx.AsyncClient) -> None:
    for path, limit in (("/raw", LIMIT_BYTES), ("/raw/small", SMALL_BYTES)):
        assert (await client.post(path, content=b"x" * limit)).json() == {"bytes": limit}
        problem(await client.post(path, content=b"x" * (limit + 1)), 413, "/problems/body-too-large")


async def test_a_body_without_a_declared_length_is_counted_as_it_comes(client: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1_000):
            sent += 100
            yield b"x" * 100

    problem(await client.post("/raw", content=endless()), 413, "/problems/body-too-large")
    assert sent <= LIMIT_BYTES + 200


async def test_a_sender_who_goes_away_does_not_reach_the_route() -> None:
    reached = asyncio.Event()

    async def app(*_: object) -> None:
        reached.set()

    async def gone() -> Message:
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None:
        raise AssertionError("nobody is there to be answered")

    await BoundedBody(app, limit=10)({"type": "http", "path": "/raw", "headers": []}, gone, send)
    assert not reached.is_set()


async def test_a_transition_needs_the_version_the_caller_has_seen(client: httpx.AsyncClient) -> None:
    problem(await client.post("/accept"), 428, "/problems/if-match-needed")
    for value in ("3", "*", 'W/"3"', '"x"', '"3", "4"'):
        problem(await client.post("/accept", headers={"if-match": value}), 412, "/problems/version-changed")
    answer = await client.post("/accept", headers={"if-match": '"2"'})
    assert problem(answer, 412, "/problems/version-changed")["version"] == 3
    assert answer.headers["etag"] == etag(3)["ETag"] == '"3"'
    assert (await client.post("/accept", headers={"if-match": '"3"'})).json() == {"version": 3}


async def test_a_sender_who_never_ends_his_body_is_answered_408() -> None:
    sent: list[Message] = []

    async def app(*_: object) -> None:
        raise AssertionError("the body is not whole")

    async def drip() -> Message:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message: Message) -> None:
        sent.append(message)

    await BoundedBody(app, limit=10**6, seconds=0.1)({"type": "http", "path": "/raw", "headers": []}, drip, send)
    assert sent[0]["status"] == 408


@pytest.mark.parametrize(("rows", "shown", "more"), [(0, 0, False), (2, 2, False), (3, 2, True), (9, 2, True)])
def test_a_page_ends_with_a_cursor_only_if_there_is_more(rows: int, shown: int, more: bool) -> None:
    answer = page(range(rows), 2, str, lambda row: (row,))
    assert answer["items"] == ["0", "1"][:shown]
    assert answer["next"] == (encode_cursor(1) if more else None)


cursor_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
cursor_numbers = st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
cursor_values = st.one_of(cursor_texts, cursor_numbers, st.booleans(), st.datetimes(timezones=st.just(UTC)))


@given(st.lists(cursor_values))
def test_a_cursor_comes_back_as_it_was(values: list[str | float | bool | datetime]) -> None:
    cursor = encode_cursor(*values)
    assert decode_cursor(cursor, *map(type, values)) == tuple(values)
    assert cursor.replace("-", "").replace("_", "").isalnum()


@given(st.text())
def test_no_other_text_is_a_cursor_of_this_list(text: str) -> None:
    with pytest.raises(Problem) as refusal:
        decode_cursor(text, str, datetime)
    assert refusal.value.status == 400


@pytest.mark.parametrize(
    "content",
    [
        "[1]",
        '["a", {"at": "yesterday"}]',
        '["a", {"at": "2026-01-01T00:00:00"}]',
        '["a", {"at": "0001-01-01T00:00:00+14:00"}]',
        '["a", {"at": "9999-12-31T23:59:59-14:00"}]',
        '["a", {"at": "2026-01-01T00:00:00Z", "more": 1}]',
        '["a", {"at": 1}]',
        '["a", {}]',
        '["\\u0000", {"at": "2026-01-01T00:00:00Z"}]',
        '["\\ud800", {"at": "2026-01-01T00:00:00Z"}]',
        '{"at": 1}',
        "3",
        "[" * 10_000,
    ],
)
def test_a_forged_cursor_is_a_400(content: str) -> None:
    with pytest.raises(Problem) as refusal:
        decode_cursor(base64.urlsafe_b64encode(content.encode()).decode(), str, datetime)
    assert json.loads(bytes(refusal.value.response().body))["type"] == "/problems/malformed-cursor"


@pytest.mark.parametrize("content", [f"[{10**30}]", f"[-{10**30}]", f"[{2**63}]", "[true]", f"[{'9' * 5000}]", "[1.5]"])
def test_a_number_of_a_cursor_is_an_integer_of_64_bits(content: str) -> None:
    with pytest.raises(Problem, match="400"):
        decode_cursor(base64.urlsafe_b64encode(content.encode()).decode(), int)


@pytest.mark.parametrize("content", ["[NaN]", "[-Infinity]", "[1e999]"])
def test_a_number_of_a_cursor_is_finite(content: str) -> None:
    with pytest.raises(Problem, match="400"):
        decode_cursor(base64.urlsafe_b64encode(content.encode()).decode(), float)
