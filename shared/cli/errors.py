"""Which errors are answers to a person (one line, an exit code), and which are bugs (a traceback)."""

from __future__ import annotations

from shared.bus import BusError
from shared.cli.client import CallFailed, ServerUnreachable
from shared.db import DatabaseError
from shared.lock import DataInUse
from shared.security import KeyEntryInvalid
from shared.service import UnknownName
from shared.settings import SettingsInvalid

WRONG_CALL = (SettingsInvalid, UnknownName, KeyEntryInvalid)
FAILURES = (BusError, DatabaseError, DataInUse, CallFailed, ServerUnreachable, OSError)


def exit_code(error: Exception) -> int | None:
    """2 for a wrong call, 1 for a failure that the message explains, None for a bug."""
    if isinstance(error, WRONG_CALL):
        return 2
    return 1 if isinstance(error, FAILURES) else None
