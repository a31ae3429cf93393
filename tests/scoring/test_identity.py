"""Normal forms of ids, and what identifies nobody."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scoring.identity import (
    ANONYMOUS_ID,
    EMAIL,
    USER_ID,
    IdentityRefused,
    crm_kind,
    identity,
    survivor_first,
)


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        (" Ana.Diaz@ACME.Example ", "ana.diaz@acme.example"),
        ("Ana@MÜNCHEN.example", "ana@xn--mnchen-3ya.example"),
        ("ana@xn--mnchen-3ya.example", "ana@xn--mnchen-3ya.example"),
        ("a.n.a+news@acme.example", "a.n.a+news@acme.example"),
        ("straße@acme.example", "straße@acme.example"),
        (unicodedata.normalize("NFD", "renée@acme.example"), unicodedata.normalize("NFC", "renée@acme.example")),
    ],
)
def test_an_e_mail_address_has_one_normal_form(written: str, normal: str) -> None:
    assert identity(EMAIL, written) == (EMAIL, normal)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        1.5,
        "",
        "  ",
        "null",
        "NULL",
        "undefined",
        "0",
        0,
        "None",
        "nan",
        "-0",
        "00",
        "0.0",
        "0000-0000",
        "-1",
        "(null)",
        '"null"',
        "'undefined'",
        "<none>",
        "null\u200b",
        "\ufeffundefined",
        "\u200b",
        "{}",
        "[]",
        "-",
        "...",
        "null@null",
        "undefined@undefined",
        "x" * 257,
        "a\x00b",
        "\ud800",
        2**63,
    ],
)
@pytest.mark.parametrize("kind", [USER_ID, ANONYMOUS_ID, "crm:hubspot"])
def test_what_senders_put_where_an_id_is_missing_identifies_nobody(kind: str, value: object) -> None:
    with pytest.raises(IdentityRefused) as refusal:
        identity(kind, value)
    assert not value or str(value)[:20] not in str(refusal.value) or value is True


@pytest.mark.parametrize(
    "address",
    [
        "noreply@acme.example",
        "No-Reply@acme.example",
        "no_reply+42@acme.example",
        "donotreply@acme.example",
        "do-not-reply@acme.example",
        "null@acme.example",
        "(null)@acme.example",
        "00@acme.example",
        "postmaster@acme.example",
        "Mailer-Daemon@acme.example",
        "bounce@acme.example",
        "bounces@acme.example",
        "bounce-12345@acme.example",
        "bounces+12345=ana=acme.example@mail.example",
        "undefined",
        "@acme.example",
        "ana@localhost",
        "ana@@acme.example",
        "ana@acme.example\r\nBcc: all@acme.example",
        "ana@[10.0.0.1]",
    ],
)
def test_mailboxes_of_nobody_and_what_is_no_address_are_refused(address: str) -> None:
    with pytest.raises(IdentityRefused):
        identity(EMAIL, address)


@pytest.mark.parametrize("value", ["10", "-10", "0a", "nullable", "n-u", "x.0", "\u4e2d\u6587", "id@shop"])
def test_an_id_that_only_resembles_a_placeholder_is_one(value: str) -> None:
    assert identity(USER_ID, value) == (USER_ID, value)


@pytest.mark.parametrize("address", ["bouncer@club.example", "nullmann@acme.example", "ana.bounce@acme.example"])
def test_a_name_that_only_resembles_nobodys_mailbox_is_somebodys(address: str) -> None:
    assert identity(EMAIL, address) == (EMAIL, address)


def test_numbers_pass_for_ids_and_case_is_kept() -> None:
    assert identity("crm:hubspot", 51) == ("crm:hubspot", "51")
    assert identity(USER_ID, " AiUGstSDIg ") == (USER_ID, "AiUGstSDIg")


@pytest.mark.parametrize("namespace", ["", "Hub Spot", "a" * 41, "crm:x", "ünicode"])
def test_a_namespace_is_a_short_plain_word(namespace: str) -> None:
    with pytest.raises(IdentityRefused):
        crm_kind(namespace)


def test_a_known_lead_survives_a_provisional_one_and_the_older_survives_the_younger() -> None:
    assert survivor_first("anon_1", "lead_9") == ("lead_9", "anon_1")
    assert survivor_first("lead_9", "lead_2") == ("lead_2", "lead_9")


@given(st.text(max_size=40), st.sampled_from(["acme.example", "MÜNCHEN.example", "ACME.example"]))
def test_a_normal_form_is_its_own_normal_form(local: str, domain: str) -> None:
    try:
        once = identity(EMAIL, f"{local}@{domain}")
    except IdentityRefused:
        return
    assert identity(EMAIL, once.value) == once
    assert identity(EMAIL, unicodedata.normalize("NFD", f"{local}@{domain}")) == once


@given(st.text(max_size=300))
def test_any_text_is_an_id_in_normal_form_or_refused_with_a_reason(text: str) -> None:
    reason = ""
    try:
        once = identity(USER_ID, text)
        assert identity(USER_ID, once.value) == once
    except IdentityRefused as refusal:
        reason = str(refusal)
    assert not reason or reason.startswith("user_id ")
