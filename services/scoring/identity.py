"""What a lead is reached through, in the one form under which it is looked up.

Kinds: `email`, `user_id`, `anonymous_id`, and `crm:<namespace>` for the ids of each CRM. Normal forms:

- e-mail: Unicode NFC, no white space around it, the local part in lower case, the domain in its ASCII (IDNA) form;
  `Ana@MÜNCHEN.example` is `ana@xn--mnchen-3ya.example`. Lower case, not case folding: `straße@` is not `strasse@`.
  No DNS is asked, no tag (`+news`) and no dot is taken out: those are habits of one provider.
- any other id: NFC, no white space around it, case kept; a whole number is its digits.

What senders put where an id is missing (`null`, `undefined`, `0`, `noreply@...`) would join strangers; it is refused,
also in quotes or brackets (`(null)`), with something invisible in it, or as zeros of any length (`-0`, `0.0`).
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from email_validator import EmailNotValidError, validate_email

EMAIL = "email"
ANONYMOUS_ID = "anonymous_id"
USER_ID = "user_id"
LEAD_ID = "lead_id"  # a lead named outright, by its id; never stored as an identity

KNOWN = "lead_"
PROVISIONAL = "anon_"

MAX_CHARACTERS = 256
NAMESPACE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")
UNSTORABLE = re.compile("[\x00-\x1f\x7f\ufffd\ud800-\udfff]")  # \ufffd stands where something could not be decoded

PLACEHOLDERS = frozenset(  # as letters and digits alone
    {"null", "undefined", "none", "nil", "nan", "na", "unknown", "anonymous", "guest", "true", "false", "objectobject"}
)
NOBODYS_MAILBOXES = ("noreply", "donotreply", "dontreply", "mailerdaemon", "postmaster")
BOUNCES = re.compile(r"bounces?\d*(?![^\W_])")  # also with whose it was: `bounce-123`, `bounces+ana=`
SEPARATORS = str.maketrans("", "", "-_.")


class IdentityRefused(ValueError):
    """What was given identifies nobody; says why, without the value."""


class Identity(NamedTuple):
    """(kind, normal form): the key under which a lead is found."""

    kind: str
    value: str

    @property
    def is_exclusive(self) -> bool:
        """A person has one of this kind: leads that hold different ones are two people, until told otherwise."""
        return self.kind == USER_ID or self.kind.startswith("crm:")


def namespace(name: str) -> str:
    """What a CRM is called here. Raises `IdentityRefused`."""
    name = name.strip().lower()
    if not NAMESPACE.fullmatch(name):
        raise IdentityRefused("a CRM's namespace is 1 to 40 of a-z, 0-9, _ . - and starts with a letter or digit")
    return name


def crm_kind(name: str) -> str:
    """The kind of a CRM's ids. Raises `IdentityRefused`."""
    return f"crm:{namespace(name)}"


def identity(kind: str, value: object) -> Identity:
    """The identity in normal form. Raises `IdentityRefused`."""
    text = _text(kind, value)
    return Identity(kind, _mailbox(text) if kind == EMAIL else text)


def is_provisional(lead_id: str) -> bool:
    """Met only through an anonymous id."""
    return lead_id.startswith(PROVISIONAL)


def survivor_first(one: str, other: str) -> tuple[str, str]:
    """The same two leads, the one that survives a merge first: known before provisional, then the lowest id."""
    first, second = sorted((one, other), key=lambda lead_id: (is_provisional(lead_id), lead_id))
    return first, second


def _text(kind: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise IdentityRefused(f"{kind} is neither text nor a whole number")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise IdentityRefused(f"{kind} is too long a number")
    text = unicodedata.normalize("NFC", str(value)).strip()
    if len(text) > MAX_CHARACTERS:
        raise IdentityRefused(f"{kind} is longer than {MAX_CHARACTERS} characters")
    if UNSTORABLE.search(text):
        raise IdentityRefused(f"{kind} holds a character that no id has")
    if all(_is_placeholder(part) for part in text.split("@")):
        raise IdentityRefused(f"{kind} is a placeholder")
    return text


def _is_placeholder(text: str) -> bool:
    """Whether, without quotes, brackets, signs and what is invisible, nothing is left, or zeros, or a word for it."""
    bare = "".join(letter for letter in text.lower() if letter.isalnum())
    return not bare.strip("0") or bare in PLACEHOLDERS or text == "-1"


def _mailbox(text: str) -> str:
    try:
        parts = validate_email(text, check_deliverability=False, globally_deliverable=False, test_environment=True)
    except EmailNotValidError as error:
        raise IdentityRefused("email is no e-mail address") from error
    local = unicodedata.normalize("NFC", parts.local_part.lower())
    if "." not in parts.ascii_domain:
        raise IdentityRefused("email has no domain")
    if local.partition("+")[0].translate(SEPARATORS).startswith(NOBODYS_MAILBOXES) or BOUNCES.match(local):
        raise IdentityRefused("email is a mailbox that nobody reads")
    if _is_placeholder(local):
        raise IdentityRefused("email is a placeholder")
    return f"{local}@{parts.ascii_domain.lower()}"
