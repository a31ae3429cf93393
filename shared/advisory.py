"""PostgreSQL's session-level advisory locks as Baton uses them: one class, and a key made from a name."""

from __future__ import annotations

import zlib

LOCK_CLASS = 0x62746E  # "btn": what a DBA sees in pg_locks.classid


def lock_key(name: str) -> int:
    """The lock's number, a signed 32-bit integer. Two names that collide only wait for each other."""
    return zlib.crc32(name.encode()) - 2**31
