"""From bytes to values that can be kept: one JSON parser, times, names. Whatever a sender sends, nothing here crashes.

What PostgreSQL, JSON or the event log could not hold is replaced on the way in (the request's exact bytes are kept):
NUL is left out, a lone surrogate becomes U+FFFD, a number that is not finite becomes null.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from services.scoring.arrivals import When

SURROGATES = re.compile("[\ud800-\udfff]")
LARGEST = 2**63 - 1
WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
NOT_WORD = re.compile(r"[\W_]+")
MAX_NAME = 100


class Malformed(ValueError):
    """These bytes are not JSON; says where, never what stands there."""


def parse(body: bytes) -> Any:
    """The JSON value. Raises `Malformed`.

    One item of a batch with a lone surrogate or a NaN must not cost the others: what the strict parser refuses is read
    once more by the lenient one.
    """
    try:
        return msgspec.json.decode(body)
    except RecursionError as error:
        raise Malformed("nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _leniently(body)


def snake(name: str) -> str:
    """`Order Completed`, `orderCompleted` and `order-completed` are `order_completed`; at most 100 characters."""
    return NOT_WORD.sub("_", WORD_START.sub("_", clean(name))).strip("_").lower()[:MAX_NAME]


def clean(text: str) -> str:
    """The text without what a database refuses."""
    return SURROGATES.sub("\ufffd", text).replace("\x00", "")


def when(claimed: object, sent: object = None) -> When:
    """What a sender says about time: ISO 8601 (UTC without an offset), or milliseconds since 1970."""
    claimed_at = instant(claimed)
    is_unreadable = claimed_at is None and claimed is not None and claimed != ""
    return When(claimed_at=claimed_at, sent_at=instant(sent), is_unreadable=is_unreadable)


def instant(value: object) -> datetime | None:
    """The instant, aware, UTC; None for what is none."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None


def _leniently(body: bytes) -> Any:
    try:
        return _storable(json.loads(body, parse_int=_integer, parse_constant=lambda _: None))
    except RecursionError as error:
        raise Malformed("nested too deeply") from error
    except json.JSONDecodeError as error:
        raise Malformed(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error
    except UnicodeDecodeError as error:
        raise Malformed(f"not UTF-8 at byte {error.start}") from error


def _integer(digits: str) -> int | None:
    value = int(digits) if len(digits) < 20 else None
    return value if value is not None and abs(value) <= LARGEST else None


def _storable(value: Any) -> Any:
    match value:
        case str():
            return SURROGATES.sub("\ufffd", value)
        case float():
            return value if math.isfinite(value) else None
        case list():
            return [_storable(item) for item in value]
        case dict():
            return {_storable(key): _storable(item) for key, item in value.items()}
    return value
