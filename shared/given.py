"""What a request may hold so that every database and the event log can keep it: clean text, instants in range.

NUL is in no text of PostgreSQL, and half of a surrogate pair is in no UTF-8. Both are refused where a person or a
program can still mend them; the doors of scoring, whose senders repeat no 4xx, replace them instead.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import unquote_to_bytes

from pydantic import AfterValidator, AwareDatetime

FIRST_INSTANT = datetime(1970, 1, 1, tzinfo=UTC)
LAST_INSTANT = datetime(2200, 1, 1, tzinfo=UTC)
LARGEST_INTEGER = 2**63 - 1


def is_clean(text: str) -> bool:
    """Whether every database can keep it."""
    return "\x00" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def is_clean_address(encoded: bytes) -> bool:
    """Whether a percent-encoded path or query is clean text, in UTF-8."""
    try:
        return is_clean(unquote_to_bytes(encoded).decode())
    except UnicodeDecodeError:
        return False


def _clean(text: str) -> str:
    if not is_clean(text):
        raise ValueError("it holds NUL or half of a surrogate pair, which no text may")
    return text


def _in_range(at: datetime) -> datetime:
    """Compared before it is converted: year 1 at +14:00 is before all time that Python knows in UTC."""
    if not FIRST_INSTANT <= at < LAST_INSTANT:
        raise ValueError(f"it is not from {FIRST_INSTANT:%Y} on and before {LAST_INSTANT:%Y}")
    return at


CLEAN = AfterValidator(_clean)
Text = Annotated[str, CLEAN]
Instant = Annotated[AwareDatetime, AfterValidator(_in_range)]
