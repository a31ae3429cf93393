"""One text for both databases: what PostgreSQL and SQLite spell differently is expanded here, in one place.

    CLOSE = sql(
        "UPDATE clocks SET state = 'met', met_at = rows.met_at FROM {rows} WHERE clocks.clock_id = rows.clock_id",
        clock_id="text", met_at="timestamptz",
    )
    await session.execute(CLOSE, rows=[(clock_id, met_at), ...])

- `{rows}`: a list of tuples as a relation named `rows`; PostgreSQL: `unnest` of arrays, SQLite: `json_each`.
  `rows.row_number` counts the tuples. (SQLite needs a WHERE between `FROM {rows}` and `ON CONFLICT`: `WHERE true`.)
- `{for_update}`, `{skip_locked}`: row locks on PostgreSQL, nothing on SQLite, whose one writer holds the whole file.
- `:name` parameters as in SQLAlchemy's `text()`. `clock_timestamp()` exists on both.
- Where the two must really differ: `Statement(postgresql=..., sqlite=...)`, side by side.

Instants are `timestamptz` on PostgreSQL and text of one fixed width on SQLite, which sorts as time does; every column
that holds one is named `..._at`, and comes back as an aware datetime. JSON is kept as text on both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import TextClause, text

from shared.arrays import ColumnType, PackedArray, packed

Dialect = Literal["postgresql", "sqlite"]
Rows = Sequence[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Statement:
    """The same statement for each database, and the columns of its `{rows}`, if it takes any."""

    postgresql: TextClause
    sqlite: TextClause
    columns: Mapping[str, ColumnType] = field(default_factory=dict)

    def bind(
        self, dialect: Dialect, rows: Rows | None, parameters: Mapping[str, Any]
    ) -> tuple[TextClause, dict[str, Any]]:
        """The text and its parameters for one database."""
        if dialect == "postgresql":
            return self.postgresql, {**parameters, **self._arrays(rows)}
        bound = {name: to_sqlite(value) for name, value in parameters.items()}
        if rows is not None:
            bound["_rows"] = json.dumps([[_to_json(value) for value in row] for row in rows])
        return self.sqlite, bound

    def _arrays(self, rows: Rows | None) -> dict[str, PackedArray]:
        if rows is None:
            return {}
        columns = list(zip(*rows, strict=True)) if rows else [() for _ in self.columns]
        return {
            f"_{name}": packed(kind, values) for (name, kind), values in zip(self.columns.items(), columns, strict=True)
        }


def sql(template: str, /, **columns: ColumnType) -> Statement:
    """The statement of a template; `columns` names and types those of `{rows}`, in order."""
    arrays = ", ".join(f"CAST(:_{name} AS {kind}[])" for name, kind in columns.items())
    unnested = f"unnest({arrays}) WITH ORDINALITY AS rows({', '.join(columns)}, row_number)"
    picks = ", ".join(_pick(position, name, kind) for position, (name, kind) in enumerate(columns.items()))
    each = f"(SELECT {picks}, key AS row_number FROM json_each(:_rows)) AS rows"
    return Statement(
        postgresql=text(_expand(template, rows=unnested, lock="FOR UPDATE")),
        sqlite=text(_expand(template, rows=each, lock="")),
        columns=columns,
    )


def to_sqlite(value: Any) -> Any:
    """A parameter as SQLite keeps it."""
    return _sqlite_time(value) if isinstance(value, datetime) else value


def from_sqlite(name: str, value: Any) -> Any:
    """A result column as the code wants it: names that end in `_at` are instants."""
    if name.endswith("_at") and isinstance(value, str):
        return datetime.fromisoformat(value)
    return value


def sqlite_now() -> str:
    """`clock_timestamp()` on SQLite."""
    return _sqlite_time(datetime.now(UTC))


def _sqlite_time(at: datetime) -> str:
    """Always 27 characters. `isoformat` takes 0.5 us where `strftime` takes 3, and `strptime`, on the way back, 8."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")[:26] + "Z"


def _expand(template: str, *, rows: str, lock: str) -> str:
    return (
        template.replace("{rows}", rows)
        .replace("{for_update}", lock)
        .replace("{for_update_of_positions}", f"{lock} OF positions" if lock else "")
        .replace("{skip_locked}", f"{lock} SKIP LOCKED" if lock else "")
    )


def _pick(position: int, name: str, kind: ColumnType) -> str:
    value = f"value->>{position}"
    return f"unhex({value}) AS {name}" if kind == "bytea" else f"{value} AS {name}"


def _to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return to_sqlite(value)
