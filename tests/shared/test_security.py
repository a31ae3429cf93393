"""API keys: only the right key with the right scope passes; a mistake in an entry is said without its hash."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.security import KeyEntryInvalid, Keyring, Scope, key_id, new_key

scopes = st.sets(st.sampled_from(sorted(Scope)), min_size=1)


@given(scopes)
def test_a_new_key_opens_what_its_entry_says_and_nothing_else(granted: set[Scope]) -> None:
    key, entry = new_key(granted)
    principal = Keyring([entry]).principal(key)
    assert principal is not None
    assert principal.scopes == granted
    assert {scope for scope in Scope if principal.may(scope)} == (set(Scope) if Scope.ADMIN in granted else granted)


@given(st.text())
def test_no_other_text_is_a_key(text: str) -> None:
    _, entry = new_key(["admin"])
    assert Keyring([entry]).principal(text) is None


def test_the_right_id_with_another_secret_is_nobody() -> None:
    _, entry = new_key(["admin"], name="ops")
    stolen, _ = new_key(["admin"], name="ops")
    assert Keyring([entry]).principal(stolen) is None


def test_an_entry_does_not_hold_the_key() -> None:
    key, entry = new_key(["leads:read"])
    assert key.split("_", 2)[2] not in entry


def test_only_the_id_of_a_key_is_for_the_log() -> None:
    key, _ = new_key(["admin"], name="ops")
    assert key_id(key) == "ops"
    assert key_id("Hunter2") is None


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("", "1 to 40 letters"),
        ("ops", "'ops': the second part is the SHA-256"),
        (f"ops:{'0' * 64}", "unknown scope ''"),
        (f"ops:{'0' * 64}:lead:read", "unknown scope 'lead:read'; did you mean 'leads:read'"),
        (f"ops:{'0' * 64}:admin,", "unknown scope ''"),
    ],
)
def test_a_malformed_entry_is_refused_saying_why(entry: str, message: str) -> None:
    with pytest.raises(KeyEntryInvalid, match=message):
        Keyring([entry])


def test_two_entries_with_one_id_are_refused() -> None:
    entries = [new_key(["admin"], name="ops")[1] for _ in range(2)]
    with pytest.raises(KeyEntryInvalid, match="'ops' stands twice"):
        Keyring(entries)
