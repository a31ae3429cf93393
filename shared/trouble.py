"""What can go wrong with a database, and what kind of repetition helps."""

from __future__ import annotations

import sqlite3
from enum import StrEnum

import psycopg
from sqlalchemy.exc import DBAPIError, ResourceClosedError
from sqlalchemy.exc import TimeoutError as PoolTimeout

# Lock not available; read-only server (an old primary); our own idle-in-transaction and transaction time-outs.
UNAVAILABLE_STATES = frozenset({"55P03", "25006", "25P03", "25P04"})


class DatabaseError(Exception):
    """Trouble of the database, not of the data."""


class DatabaseUnavailable(DatabaseError):
    """Not reachable, not writable, full or overloaded. Nothing was committed; try again later."""


class OutcomeUnknown(DatabaseUnavailable):
    """The connection was lost during COMMIT: the transaction may or may not stand."""


class StatementTimeout(DatabaseError):
    """A statement ran longer than allowed. Nothing was committed."""


class TransactionLost(DatabaseUnavailable):
    """The transaction that was begun is no longer the one that is open (SQLite ends one itself on a full disk)."""


class Trouble(StrEnum):
    """What kind of repetition helps."""

    CONFLICT = "conflict"  # at once
    UNAVAILABLE = "unavailable"  # later
    TIMEOUT = "timeout"  # with less


def trouble(error: BaseException) -> Trouble | None:
    """What kind of trouble of the database this is; None: an error of the data or a bug."""
    if isinstance(error, StatementTimeout):
        return Trouble.TIMEOUT
    if isinstance(error, (DatabaseError, PoolTimeout, ResourceClosedError)):
        return Trouble.UNAVAILABLE
    if not isinstance(error, DBAPIError):
        return None
    original = error.orig
    if isinstance(original, sqlite3.Error):
        return _sqlite_trouble(original)
    state = getattr(original, "sqlstate", None)
    if state is None:
        is_lost = error.connection_invalidated or isinstance(original, psycopg.OperationalError)
        return Trouble.UNAVAILABLE if is_lost else None
    if state == "57014":
        return Trouble.TIMEOUT
    if state[:2] == "40":
        return Trouble.CONFLICT
    if state[:2] in ("08", "53", "58") or state[:3] == "57P" or state in UNAVAILABLE_STATES:
        return Trouble.UNAVAILABLE
    return None


def _sqlite_trouble(error: sqlite3.Error) -> Trouble | None:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Trouble.CONFLICT
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        return Trouble.UNAVAILABLE
    return None


def in_short(error: BaseException) -> str:
    """The error's first line, without parameters: values are personal data."""
    original = getattr(error, "orig", None) or error
    return f"{type(original).__name__}: {str(original).splitlines()[0] if str(original) else 'no message'}"
