"""What a sender tells about a lead, sorted: contact details stay in scoring's tables, everything else may travel.

- **Traits** (facts about the lead): the names in `CONTACT` are contact details under Baton's own names; the rest are
  attributes, nested ones under dotted names (`plan.seats`), with a few common spellings brought to one word.
- What looks like a contact detail (`contact`, which says what it cannot find) and is none of these travels nowhere:
  properties are never about the lead for sure (`invitee_email` is somebody else's).
- Web addresses lose user info, query and fragment, where personal data hides; campaign parameters are read first.

What goes beyond the limits is left out, in the sender's order, and the item's verdict and quarantine say so; the raw
bytes are kept. An item says the same however often it comes, so that the limits change nothing about order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from services.scoring.sources.contact import CONTACT, holds_contact_detail, is_contact_detail
from services.scoring.sources.reading import LARGEST, MAX_NAME, clean, snake
from shared.events import Scalar

MAX_ATTRIBUTES = 64
MAX_PROPERTIES = 100
MAX_DEPTH = 5
MAX_TEXT = 1000
WEB_ADDRESS = re.compile(r"(?:https?:)?//", re.IGNORECASE)

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


@dataclass(slots=True)
class Excess:
    """What of an item is beyond the limits: how many values were left out, how many texts cut."""

    left_out: int = 0
    cut: int = 0

    def __str__(self) -> str:
        """What the sender is told; empty if there was none."""
        if not self.left_out and not self.cut:
            return ""
        return (
            f"taken, but {self.left_out} values were left out and {self.cut} texts cut: an item has at most "
            f"{MAX_ATTRIBUTES} attributes and {MAX_PROPERTIES} properties, in {MAX_DEPTH} levels, their names at most "
            f"{MAX_NAME} and texts {MAX_TEXT} characters"
        )


def traits(given: Mapping[str, Any], excess: Excess) -> tuple[dict[str, str], dict[str, Scalar]]:
    """Facts about a lead as (contact details, attributes)."""
    contact: dict[str, str] = {}
    attributes: dict[str, Scalar] = {}
    for name, value in _flat(given, MAX_ATTRIBUTES, excess):
        if name in CONTACT:
            contact.setdefault(CONTACT[name], "" if value is None else str(value))
        elif not is_contact_detail(name, value):
            attributes.setdefault(ATTRIBUTE.get(name, name), _typed(ATTRIBUTE.get(name, name), value))
    return contact, attributes


def properties(given: Mapping[str, Any], excess: Excess) -> dict[str, Scalar]:
    """What may travel of an activity's own properties."""
    kept: dict[str, Scalar] = {}
    for name, value in _flat(given, MAX_PROPERTIES, excess):
        if not is_contact_detail(name, value):
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
    return {name: value for name, value in found.items() if not holds_contact_detail(value)}


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


def _flat(given: Mapping[str, Any], most: int, excess: Excess) -> Iterator[tuple[str, Scalar]]:
    """Names in snake case, dotted, and their values, cleaned; the first `most` of them, in the sender's order."""
    stack: list[tuple[str, Any, int]] = []
    _push(stack, "", given, 1)
    while stack and most:
        name, value, depth = stack.pop()
        if len(name) > MAX_NAME or (depth > MAX_DEPTH):
            excess.left_out += 1
        elif isinstance(value, Mapping | list):
            _push(stack, f"{name}.", value, depth + 1)
        elif name:
            most -= 1
            yield name, _scalar(value, excess)
    excess.left_out += len(stack)


def _push(stack: list[tuple[str, Any, int]], prefix: str, value: Mapping[str, Any] | list[Any], depth: int) -> None:
    inner = list(value.items() if isinstance(value, Mapping) else enumerate(value))
    stack.extend((f"{prefix}{_word(str(key))}", item, depth) for key, item in reversed(inner))


def _word(name: str) -> str:
    """In snake case; a name that is too long stays so, to be left out: cut, two might become one."""
    return snake(name) if len(name) <= MAX_NAME else name


def _scalar(value: Any, excess: Excess) -> Scalar:
    match value:
        case bool() | None:
            return value
        case str():
            text = clean(value)
            excess.cut += len(text) > MAX_TEXT
            text = text[:MAX_TEXT]
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
