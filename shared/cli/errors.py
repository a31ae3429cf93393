"""Which errors are answers to a person (one line, an exit code), and which are bugs (a traceback).

try:
    ...
except Exception as error:
    fail(error, "baton")     # exit code 2: a wrong call; 1: a failure that the message explains
"""

from __future__ import annotations

import json
import sys
from typing import NoReturn

import typer
from sqlalchemy.exc import DBAPIError

from shared.agreement import AgreementInvalid
from shared.bus import BusError
from shared.cli.client import CallFailed, ServerUnreachable, UrlInvalid
from shared.db import DatabaseError, trouble
from shared.lock import DataInUse
from shared.security import KeyEntryInvalid
from shared.service import UnknownName
from shared.settings import SettingsInvalid
from shared.trouble import in_short

WRONG_CALL = (SettingsInvalid, UnknownName, KeyEntryInvalid, UrlInvalid)
FAILURES = (BusError, DatabaseError, DataInUse, CallFailed, ServerUnreachable, AgreementInvalid, OSError)

NOT_MIGRATED = ("42P01", "42703", "3F000")  # no such table, column, schema
NOT_MIGRATED_SQLITE = ("no such table", "no such column")
REFUSED = ("28", "3D", "42501")  # who we are, which database, what we may


def fail(error: Exception, program: str, *, as_json: bool = False) -> NoReturn:
    """Say it on standard error and exit; a bug is raised again."""
    told = explained(error)
    if told is None:
        raise error
    code, message = told
    print(json.dumps({"error": message}) if as_json else f"{program}: {message}", file=sys.stderr)
    sys.exit(code)


def explained(error: Exception) -> tuple[int, str] | None:
    """The exit code and the words for an error that is no bug."""
    if isinstance(error, WRONG_CALL):
        return 2, str(error)
    if isinstance(error, typer.TyperException):  # with -o json alone; else Typer shows its own, with the usage
        return 2, str(getattr(error, "format_message", error.__str__)())
    if isinstance(error, FAILURES):
        return 1, str(error)
    if isinstance(error, DBAPIError):
        return _of_the_database(error)
    return None


def _of_the_database(error: DBAPIError) -> tuple[int, str] | None:
    state = getattr(error.orig, "sqlstate", None) or ""
    said = in_short(error)
    if state in NOT_MIGRATED or any(words in said for words in NOT_MIGRATED_SQLITE):
        return 1, f"the database is not at the revision of this code ({said}): run `baton migrate`"
    if trouble(error) is not None or state.startswith(REFUSED):
        return 1, f"the database cannot be used: {said}"
    return None
