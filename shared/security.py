"""Who calls: API keys, stored as hashes, scoped, compared in constant time, also for ids nobody has.

A key reads `bt_<id>_<secret>`. An entry of `BATON_API_KEYS` reads `<id>:<SHA-256 of the whole key>:<scope>,<scope>`.
256 random bits need no slow hash. To rotate: add an entry with a new id, move the callers, remove the old one.
Logs and metrics know a key by its id alone.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from shared.nearest import did_you_mean

KEY = re.compile(r"bt_([0-9a-zA-Z]{1,40})_([0-9a-zA-Z_-]{32,100})")
SECRET_BYTES = 32
NOBODY = hashlib.sha256(b"nobody").digest()


class Scope(StrEnum):
    """What a key may do. `admin` may do everything."""

    ACTIVITIES_WRITE = "activities:write"
    LEADS_READ = "leads:read"
    HANDOFFS_READ = "handoffs:read"
    HANDOFFS_WRITE = "handoffs:write"
    AGREEMENTS_READ = "agreements:read"
    AGREEMENTS_WRITE = "agreements:write"
    DELIVERIES_READ = "deliveries:read"
    ADMIN = "admin"


class KeyEntryInvalid(ValueError):
    """An entry of `BATON_API_KEYS` that cannot be used; says which one and why, never its hash."""


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose key was right."""

    id: str
    scopes: frozenset[Scope]

    def may(self, scope: str) -> bool:
        return Scope.ADMIN in self.scopes or scope in self.scopes


@dataclass(frozen=True, slots=True)
class _Entry:
    principal: Principal
    digest: bytes


class Keyring:
    """The keys of a deployment."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._entries: dict[str, _Entry] = {}
        for entry in map(_parse, entries):
            if entry.principal.id in self._entries:
                raise KeyEntryInvalid(f"API key id {entry.principal.id!r} stands twice; give the new key its own id")
            self._entries[entry.principal.id] = entry

    def principal(self, key: str) -> Principal | None:
        """Whose key this is; None if nobody's. Takes the same time either way."""
        entry = self._entries.get(key_id(key) or "")
        is_right = hmac.compare_digest(_digest(key), entry.digest if entry else NOBODY)
        return entry.principal if entry and is_right else None


def key_id(key: str) -> str | None:
    """The part of a key that may be logged; None if it is not shaped like one."""
    match = KEY.fullmatch(key)
    return match[1] if match else None


def new_key(scopes: Iterable[str], *, name: str | None = None) -> tuple[str, str]:
    """A new key, to be shown once, and its entry, to be stored."""
    key = f"bt_{name or secrets.token_hex(4)}_{secrets.token_urlsafe(SECRET_BYTES)}"
    return key, entry_of(key, scopes)


def entry_of(key: str, scopes: Iterable[str]) -> str:
    """The entry under which a key with these scopes is stored. Raises `KeyEntryInvalid`."""
    entry = f"{key_id(key) or ''}:{_digest(key).hex()}:{','.join(scopes)}"
    _parse(entry)
    return entry


def hmac_sha256(secret: str, content: bytes) -> bytes:
    """The signature most senders use; compare with `hmac.compare_digest` only."""
    return hmac.new(secret.encode(), content, hashlib.sha256).digest()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _parse(entry: str) -> _Entry:
    name, _, rest = entry.partition(":")
    digest, _, scopes = rest.partition(":")
    if not re.fullmatch(r"[0-9a-zA-Z]{1,40}", name):
        raise KeyEntryInvalid("an API key's id is 1 to 40 letters and digits; an entry reads id:sha256:scope,scope")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise KeyEntryInvalid(f"API key {name!r}: the second part is the SHA-256 of the key, 64 hex digits")
    for scope in scopes.split(","):
        if scope not in set(Scope):
            known = ", ".join(Scope)
            raise KeyEntryInvalid(
                f"API key {name!r}: unknown scope {scope!r}{did_you_mean(scope, list(Scope))}; known: {known}"
            )
    return _Entry(Principal(name, frozenset(map(Scope, scopes.split(",")))), bytes.fromhex(digest))
