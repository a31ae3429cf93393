"""Time is an argument (law 10). Here are the only two places where it comes from outside a transaction.

Inside a transaction `now` is the database's (`Session.now`). Deadlines of this process use the monotonic clock of
asyncio. What is left, e.g. the tolerance of a webhook's signature, asks a `Clock` that its composition root was given.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    """This machine's time, aware, UTC."""
    return datetime.now(UTC)


def uuid7() -> str:
    """A time-ordered id (RFC 9562, version 7): 48 bits of milliseconds, then random."""
    milliseconds = time.time_ns() // 1_000_000
    number = (milliseconds & (2**48 - 1)) << 80 | secrets.randbits(80)
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
