"""A text about a lead, as mail and as a Slack message. Pure: fixed templates, a lead's fields are only data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from services.notifier.escape import plain, short_name, slack, slack_mention
from shared.events import MqlQualified

Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Text:
    """What is said. Only `mql` holds what a lead gave; all else are words of ours or of the agreement."""

    headline: str
    mql: MqlQualified | None
    link: str
    said: str
    why: tuple[str, ...] = ()
    dues: tuple[str, ...] = ()


def mail(text: Text, *, to: str) -> Mapping[str, str]:
    """Subject, plain text and HTML."""
    values = {
        "headline": text.headline,
        "said": plain(text.said, 400),
        "facts": _facts(text.mql),
        "why": text.why,
        "dues": text.dues,
        "link": text.link,
    }
    environment = _environment()
    return {
        "to": to,
        "subject": f"{text.headline}: {_subject_name(text.mql)}",
        "text": environment.get_template("message.txt").render(values),
        "html": environment.get_template("message.html").render(values),
    }


def slack_payload(text: Text, *, mention: str | None) -> Mapping[str, str]:
    """The body for an incoming webhook. What a lead gave stands in `plain_text` only, which knows no markup."""
    lines = [plain(text.said, 400), *(f"{label}: {value}" for label, value in _facts(text.mql))]
    lines += [f"Why: {', '.join(text.why)}"] if text.why else []
    lines += [f"Due: {', '.join(text.dues)}"] if text.dues else []
    shown = slack("\n".join(lines))
    action = f"{slack_mention(mention)} <{slack(text.link)}|Open in Baton>".strip()
    payload = {
        "text": slack(f"{text.headline}: {_subject_name(text.mql)}"),
        "blocks": [
            {"type": "section", "text": {"type": "plain_text", "emoji": False, "text": slack(text.headline)}},
            {"type": "section", "text": {"type": "plain_text", "emoji": False, "text": shown[:2900]}},
            {"type": "section", "text": {"type": "mrkdwn", "verbatim": True, "text": action}},
        ],
        "link_names": False,
        "unfurl_links": False,
        "unfurl_media": False,
    }
    return {"payload": json.dumps(payload)}


def _facts(mql: MqlQualified | None) -> Facts:
    """Label and value, each value one clean line."""
    if mql is None:
        return ()
    contact = mql.contact
    found = (
        ("Name", _name(contact)),
        ("Company", contact.get("company", "")),
        ("E-mail", contact.get("email", "")),
        ("Phone", contact.get("phone", "")),
        ("Product", f"{mql.product}, {mql.motion.replace('_', ' ')}"),
        ("Score", f"{mql.score:g} ({mql.bucket})"),
    )
    return tuple((label, plain(value)) for label, value in found if value)


def _name(contact: Mapping[str, str]) -> str:
    parts = (contact.get("first_name", ""), contact.get("last_name", ""))
    return contact.get("name") or " ".join(part for part in parts if part)


def _subject_name(mql: MqlQualified | None) -> str:
    contact = mql.contact if mql else {}
    return short_name(_name(contact)) or short_name(contact.get("company", "")) or "a new lead"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("services.notifier", "templates"),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
