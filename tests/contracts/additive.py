"""What may change inside a version of an event: optional fields may be added, nothing else.

The schema of each type is kept beside its golden example. After adding a field, `python -m tests.contracts.additive`
writes the schemas anew; it refuses what would break a reader.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from shared.events import EVENTS, Event

SCHEMAS = Path(__file__).parent / "schemas"


class Fields(msgspec.Struct, frozen=True):
    """One structure of an event: the schema of each field, defaults included, and which must be there."""

    properties: dict[str, dict[str, object]]
    required: list[str]


Schema = dict[str, Fields]  # by the structure's name


def schema_of(event: type[Event]) -> Schema:
    """The structures of an event, without the words that explain them."""
    definitions = msgspec.json.schema(event)["$defs"]
    return {name: msgspec.convert(shape, Fields) for name, shape in definitions.items()}


def breaking_changes(old: Schema, new: Schema) -> Iterator[str]:
    """Why a reader or writer of the old schema would not get along with the new one."""
    for name, was in old.items():
        now = new.get(name, Fields({}, []))
        for field, shape in was.properties.items():
            if field not in now.properties:
                yield f"{name}.{field} was removed"
            elif now.properties[field] != shape:
                yield f"{name}.{field} was {json.dumps(shape)}, is {json.dumps(now.properties[field])}"
        yield from (f"{name}.{field} must be given now" for field in sorted(set(now.required) - set(was.required)))
        yield from (f"{name}.{field} may be left out now" for field in sorted(set(was.required) - set(now.required)))


def kept_schema(name: str) -> Schema:
    """The schema as it was last published."""
    return msgspec.json.decode((SCHEMAS / f"{name}.v1.json").read_bytes(), type=Schema)


def main() -> int:
    broken = False
    for name, event in EVENTS.items():
        file, schema = SCHEMAS / f"{name}.v1.json", schema_of(event)
        reasons = list(breaking_changes(kept_schema(name), schema)) if file.exists() else []
        if not reasons:
            file.write_text(json.dumps(msgspec.to_builtins(schema), indent=1, sort_keys=True) + "\n")
        for reason in reasons:
            sys.stderr.write(f"{name}: {reason}: that needs a new version\n")
        broken = broken or bool(reasons)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
