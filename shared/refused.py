"""When a database refuses a value: what a caller asked with, if it came through a request, and nobody's outage."""

from __future__ import annotations

import struct
import traceback

from sqlalchemy.exc import DataError

# What a value can be wrong in: out of range, no date, date out of range, not in the character set, no such
# representation, not translatable. The rest of class 22 (a division by zero) is a statement's own fault.
VALUE_STATES = frozenset({"22003", "22007", "22008", "22021", "22P02", "22P05"})
# Of the database itself; of sqlite3, which wraps neither; of packing an array (shared/arrays.py).
VALUE_ERRORS: tuple[type[Exception], ...] = (DataError, OverflowError, UnicodeEncodeError, struct.error)


def refused_at(error: Exception) -> str | None:
    """Where the statement stands that was refused for a value; None: the error is of another kind.

    An `OverflowError` of our own arithmetic must not pass for one, so it has to come out of `Session.execute`.
    """
    if isinstance(error, DataError):
        state = getattr(error.orig, "sqlstate", None)  # none: the driver refused before it sent (NUL)
        if state is not None and state not in VALUE_STATES:
            return None
    place = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__"))
        if module == "shared.session":
            return place
        if module != "shared.db":
            place = f"{module}:{line}"
    return None
