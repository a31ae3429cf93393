"""What a sender tells about a lead, sorted: contact details stay in scoring's tables, everything else may travel.

- **Traits** (facts about the lead): the names in `CONTACT` are contact details under Baton's own names; the rest are
  attributes, nested ones under dotted names (`plan.seats`), with a few common spellings brought to one word.
- **Properties** (of one activity): never about the lead for sure (`invitee_email` is somebody else's), so what looks
  like a contact detail is left out: by the last word of its name, or because the value holds an e-mail address.
- Web addresses lose user info, query and fragment, where personal data hides; campaign parameters are read first.

At most 100 values a record, five levels, 1000 characters a text; what goes beyond is left out (the raw bytes are kept).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from services.scoring.sources.reading import LARGEST, clean, snake
from shared.events import Scalar
from shared.telemetry import E_MAIL

MAX_VALUES = 100
MAX_DEPTH = 5
MAX_TEXT = 1000
WEB_ADDRESS = re.compile(r"(?:https?:)?//", re.IGNORECASE)

CONTACT = {
    "email": "email",
    "e_mail": "email",
    "email_address": "email",
    "name": "name",
    "full_name": "name",
    "first_name": "first_name",
    "firstname": "first_name",
    "last_name": "last_name",
    "lastname": "last_name",
    "phone": "phone",
    "phone_number": "phone",
    "mobile": "phone",
    "mobilephone": "phone",
    "mobile_phone": "phone",
    "company": "company",
    "company.name": "company",
    "company_name": "company",
    "address": "address",
    "street": "address",
    "address.street": "address",
    "city": "city",
    "address.city": "city",
    "zip": "postal_code",
    "postal_code": "postal_code",
    "address.postal_code": "postal_code",
}
PERSONAL = frozenset({"username", "user_name", "avatar", "birthday", "date_of_birth", "ip", "ip_address", "fax"})
ATTRIBUTE = {
    "address.country": "country",
    "address.state": "state",
    "company.industry": "industry",
    "company.employee_count": "company_size",
    "company.employees": "company_size",
    "employees": "company_size",
    "employee_count": "company_size",
    "numberofemployees": "company_size",
    "number_of_employees": "company_size",
    "numemployees": "company_size",
    "jobtitle": "title",
    "job_title": "title",
}
NUMBERS = frozenset({"company_size"})
CAMPAIGN = {"source": "utm_source", "medium": "utm_medium", "name": "utm_campaign", "campaign": "utm_campaign"}
NOT_PRIVATE = frozenset({"name", "company", "company.name", "company_name", "city"})  # as often of a product or a firm
PRIVATE_PROPERTIES = frozenset({*CONTACT, *PERSONAL}) - NOT_PRIVATE
PRIVATE_ENDINGS = tuple(f"_{name}" for name in PRIVATE_PROPERTIES)


def traits(given: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Scalar]]:
    """Facts about a lead as (contact details, attributes)."""
    contact: dict[str, str] = {}
    attributes: dict[str, Scalar] = {}
    for name, value in _flat(given):
        if name in CONTACT:
            contact.setdefault(CONTACT[name], "" if value is None else str(value))
        elif name not in PERSONAL and not _holds_e_mail(value):
            attributes.setdefault(ATTRIBUTE.get(name, name), _typed(ATTRIBUTE.get(name, name), value))
    return contact, attributes


def properties(given: Mapping[str, Any]) -> dict[str, Scalar]:
    """What may travel of an activity's own properties."""
    kept: dict[str, Scalar] = {}
    for name, value in _flat(given):
        last = name.rpartition(".")[2]
        if last in PRIVATE_PROPERTIES or last.endswith(PRIVATE_ENDINGS) or _holds_e_mail(value):
            continue
        kept.setdefault(name, value)
    return kept


def campaign(url: object, context: Mapping[str, Any]) -> dict[str, Scalar]:
    """`utm_source`, `utm_medium`, `utm_campaign`: from a page's address, else from Segment's `context.campaign`."""
    found: dict[str, Scalar] = {}
    if isinstance(url, str):
        found = {name: clean(value)[:MAX_TEXT] for name, value in _query(url) if name in CAMPAIGN.values()}
    told = context.get("campaign")
    for name, value in told.items() if isinstance(told, Mapping) else ():
        if name in CAMPAIGN and isinstance(value, str):
            found.setdefault(CAMPAIGN[name], clean(value)[:MAX_TEXT])
    return {name: value for name, value in found.items() if not _holds_e_mail(value)}


def without_query(url: str) -> str:
    """A web address that is safe to keep; an empty text for what is none."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, "", ""))
    except ValueError:
        return ""


def _query(url: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(urlsplit(url).query, max_num_fields=50)
    except ValueError:
        return []


def _flat(given: Mapping[str, Any]) -> Iterator[tuple[str, Scalar]]:
    """Names in snake case, dotted, and their values, cleaned; at most `MAX_VALUES`."""
    left = MAX_VALUES
    stack: list[tuple[str, Any, int]] = [(snake(str(name)), value, 1) for name, value in reversed(list(given.items()))]
    while stack and left:
        name, value, depth = stack.pop()
        if isinstance(value, Mapping | list):
            inner = value.items() if isinstance(value, Mapping) else enumerate(value)
            if depth < MAX_DEPTH:
                pairs = [(f"{name}.{snake(str(key))}", item, depth + 1) for key, item in inner]
                stack.extend(reversed(pairs[:MAX_VALUES]))
        elif name:
            left -= 1
            yield name, _scalar(value)


def _scalar(value: Any) -> Scalar:
    match value:
        case bool() | None:
            return value
        case str():
            text = clean(value)[:MAX_TEXT]
            return without_query(text) if WEB_ADDRESS.match(text) else text
        case int():
            return value if abs(value) <= LARGEST else None
        case float():
            return value if math.isfinite(value) else None
    return None


def _typed(name: str, value: Scalar) -> Scalar:
    """Attributes that rules compare as numbers are numbers, also from a sender that writes `"500"`."""
    if name in NUMBERS and isinstance(value, str):
        digits = value.strip().replace(",", "")
        return int(digits) if digits.isdecimal() and len(digits) < 16 else value
    return value


def _holds_e_mail(value: Scalar) -> bool:
    return isinstance(value, str) and "@" in value and E_MAIL.search(value) is not None
