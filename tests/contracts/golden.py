"""The golden examples: one record of each event type as it lies in the log, byte for byte but for white space."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import msgspec

from shared.bus import Headers, Record

GOLDEN = Path(__file__).parent / "golden"


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    topic: str
    key: str
    headers: dict[str, str]
    value: dict[str, object]

    def record(
        self,
        *,
        headers: Headers | None = None,
        value: bytes | None = None,
        key: bytes | None = None,
        topic: str | None = None,
    ) -> Record:
        """The example as a consumer gets it, with what is given in place of its own."""
        return Record(
            topic=topic or self.topic,
            partition=0,
            offset=0,
            timestamp=datetime(2026, 11, 20, tzinfo=UTC),
            key=self.key.encode() if key is None else key,
            value=msgspec.json.encode(self.value) if value is None else value,
            headers=self.raw_headers() if headers is None else headers,
        )

    def raw_headers(self, replaced: Mapping[str, bytes] = MappingProxyType({})) -> Headers:
        """The headers, some of them with another value."""
        return tuple((name, replaced.get(name, text.encode())) for name, text in self.headers.items())


def golden(name: str) -> Golden:
    """The example of an event type."""
    return msgspec.json.decode((GOLDEN / f"{name}.v1.json").read_bytes(), type=Golden)
