"""`baton keys new`: a key that the services accept under the entry it prints."""

from __future__ import annotations

import pytest

from shared.security import Keyring, Scope
from tests.cli.conftest import baton

pytestmark = pytest.mark.slow


def test_the_key_is_accepted_under_its_entry_with_its_scopes_alone() -> None:
    made = baton("keys", "new", "crm", "--scope", "activities:write", "--scope", "leads:read", "-o", "json").json
    caller = Keyring([made["entry"]]).principal(made["key"])
    assert caller is not None
    assert (caller.id, set(caller.scopes)) == ("crm", {Scope.ACTIVITIES_WRITE, Scope.LEADS_READ})
    assert made["key"] not in made["entry"]


def test_a_person_is_told_where_each_half_goes() -> None:
    said = baton("keys", "new", "ops", "--scope", "admin").out
    assert "key    bt_ops_" in said
    assert "BATON_API_KEYS" in said


def test_an_unknown_scope_is_a_wrong_call_that_names_the_nearest() -> None:
    ran = baton("keys", "new", "crm", "--scope", "lead:read")
    assert ran.code == 2
    assert "did you mean 'leads:read'" in ran.err
