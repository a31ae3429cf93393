"""What every HTTP answer of Baton has in common: problems (RFC 9457), keys, versions (ETag), cursors.

    @router.post("/v1/handoffs/{handoff_id}/accept")
    async def accept(request: Request, caller: Principal = Depends(requires(keyring, "handoffs:write"))) -> ...:
        expected = if_match(request)                       # 428 without one
        ...
        raise Problem(422, "/problems/unknown-reason", "Unknown reason", "did you mean 'no_budget'?", allowed=[...])

A problem's `type` is a stable path: programs branch on it. Details never quote what a request contained beyond the
word that was wrong, and the last resort (in `middleware.py`) says nothing but the trace id.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, TypeVar

import structlog
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from shared.db import DatabaseError
from shared.given import LARGEST_INTEGER, is_clean
from shared.refused import VALUE_ERRORS, refused_at
from shared.security import Keyring, Principal, Scope, key_id
from shared.telemetry import metrics

PROBLEM_TYPE = "application/problem+json"
RETRY_AFTER = {"Retry-After": "1"}
ETAG = re.compile(r'"(\d{1,18})"')

log = structlog.get_logger(__name__)


class Problem(Exception):
    """An answer that is not what was asked for. `members` are what a program needs beside the text."""

    def __init__(
        self,
        status: int,
        type: str,
        title: str,
        detail: str = "",
        headers: Mapping[str, str] | None = None,
        **members: object,
    ) -> None:
        super().__init__(f"{status} {title}")
        self.status = status
        self.headers = dict(headers or {})
        self.body = {
            "type": type,
            "title": title,
            "status": status,
            **({"detail": detail} if detail else {}),
            **members,
        }

    def response(self) -> Response:
        content = json.dumps(self.body, ensure_ascii=False, default=str).encode("utf-8", "replace")
        return Response(content, self.status, self.headers, media_type=PROBLEM_TYPE)


def requires(keyring: Keyring, scope: str) -> Callable[..., Awaitable[Principal]]:
    """A dependency: the caller whose `Authorization: Bearer <key>` has this scope; else a 401 or 403 problem."""
    needed = Scope(scope)
    bearer = HTTPBearer(auto_error=False, bearerFormat="bt_<id>_<secret>")

    async def caller(credentials: HTTPAuthorizationCredentials | None = Depends(bearer)) -> Principal:
        if credentials is None:
            raise _refused(
                "missing", 401, "/problems/key-missing", "API key needed", "send Authorization: Bearer <key>"
            )
        name = key_id(credentials.credentials)
        principal = keyring.principal(credentials.credentials)
        if principal is None:
            raise _refused("wrong", 401, "/problems/key-wrong", "API key not accepted", key=name)
        if not principal.may(needed):
            text = f"this key lacks the scope {needed}"
            raise _refused("scope", 403, "/problems/scope-missing", "Not allowed", text, key=name)
        return principal

    return caller


def etag(version: int) -> dict[str, str]:
    """The header that names a row's version."""
    return {"ETag": f'"{version}"'}


def if_match(request: Request) -> int:
    """The version the caller has seen, to compare under the row's lock. 428 without one; 412 for what no row has."""
    given = request.headers.get("if-match")
    if given is None:
        text = 'send If-Match: "<version>" with the version you have read (its ETag)'
        raise Problem(428, "/problems/if-match-needed", "If-Match needed", text)
    match = ETAG.fullmatch(given.strip())
    if match is None:
        raise Problem(412, "/problems/version-changed", "No such version", 'If-Match is one strong ETag, e.g. "3"')
    return int(match[1])


def version_changed(current: int) -> Problem:
    """What `If-Match` with an older version is answered."""
    text = "somebody changed it since you read it; read it again"
    return Problem(412, "/problems/version-changed", "Changed meanwhile", text, etag(current), version=current)


Row = TypeVar("Row")
CursorValue = str | int | float | bool | datetime | None


def encode_cursor(*values: CursorValue) -> str:
    """The place of a row in a list, opaque to the caller."""
    plain = [{"at": value.astimezone(UTC).isoformat()} if isinstance(value, datetime) else value for value in values]
    return base64.urlsafe_b64encode(json.dumps(plain, separators=(",", ":")).encode()).decode().rstrip("=")


def decode_cursor(text: str, *kinds: type) -> tuple[Any, ...]:
    """The values of a cursor, of these types, in order; a 400 problem if it is not one that this list gave."""
    try:
        plain = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        values = tuple(map(_cursor_value, plain))
    except (binascii.Error, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise _malformed_cursor() from None
    if kinds and [type(value) for value in values] != list(kinds):
        raise _malformed_cursor()
    return values


def page(
    rows: Sequence[Row], limit: int, show: Callable[[Row], object], cursor_of: Callable[[Row], tuple[CursorValue, ...]]
) -> dict[str, Any]:
    """The answer of every list: the first `limit` of these rows, and a cursor to the next page if there are more.

    `rows`: one more than the limit, if there are so many. `cursor_of`: what the list is ordered by.
    """
    shown = rows[:limit]
    is_more = len(rows) > limit
    return {"items": [show(row) for row in shown], "next": encode_cursor(*cursor_of(shown[-1])) if is_more else None}


def _cursor_value(plain: object) -> CursorValue:
    """One value as a list may have given it, in what a database can compare. Raises as its parts do."""
    match plain:
        case {"at": str(text), **others} if not others:
            at = datetime.fromisoformat(text)
            if at.tzinfo is None:
                raise ValueError("an instant has its zone")
            return at.astimezone(UTC)
        case str() if is_clean(plain):
            return plain
        case bool() | None:
            return plain
        case int() if -LARGEST_INTEGER <= plain <= LARGEST_INTEGER:
            return plain
        case float() if math.isfinite(plain):
            return plain
    raise ValueError("no list gives such a value")


def add_problem_handlers(app: FastAPI) -> None:
    """Everything that goes wrong in a route is answered as a problem."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(DatabaseError, _database)
    for kind in VALUE_ERRORS:
        app.add_exception_handler(kind, _not_storable)


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _invalid(_: Request, error: Exception) -> Response:
    """Where it is wrong and what was expected; never the value, which may be a lead's."""
    assert isinstance(error, RequestValidationError)
    flaws = [
        {"at": ".".join(map(str, flaw["loc"])), "message": flaw["msg"].removeprefix("Value error, ")}
        for flaw in error.errors()
    ]
    detail = "; ".join(f"{flaw['at']}: {flaw['message']}" for flaw in flaws[:3])
    return Problem(422, "/problems/invalid-request", "Request not understood", detail, errors=flaws).response()


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    detail = error.detail if error.detail != phrase else f"{request.method} {request.url.path}"
    slug = phrase.lower().replace(" ", "-")
    return Problem(error.status_code, f"/problems/{slug}", phrase, str(detail), error.headers).response()


async def _not_storable(_: Request, error: Exception) -> Response:
    """The last line: a database refused a value, and the values of a question are the caller's. Anything else is ours.

    Logged by type and place: the driver's own text quotes the value.
    """
    place = refused_at(error)
    if place is None:
        raise error
    log.warning("value_refused", error=type(error).__name__, place=place)
    text = "a value of the request is too large, or no text that can be kept"
    return Problem(400, "/problems/value-refused", "Value refused", text).response()


async def _database(_: Request, error: Exception) -> Response:
    """Trouble of ours is never a 4xx: a sender would not repeat it."""
    log.warning("database_unavailable", error=type(error).__name__)
    text = "the database does not answer; nothing is known to be stored, send it again"
    return Problem(503, "/problems/unavailable", "Unavailable", text, RETRY_AFTER).response()


def _refused(reason: str, status: int, type: str, title: str, detail: str = "", *, key: str | None = None) -> Problem:
    metrics.keys_refused.labels(reason).inc()
    log.warning("key_refused", reason=reason, key_id=key)
    return Problem(status, type, title, detail, {"WWW-Authenticate": 'Bearer realm="baton"'} if status == 401 else {})


def _malformed_cursor() -> Problem:
    text = "pass `next` of the previous page unchanged, or leave the cursor out"
    return Problem(400, "/problems/malformed-cursor", "Malformed cursor", text)
