"""What a lead typed into a form, made harmless for each place where it is shown (law 9). Pure.

Every field passes `plain` first, whatever the place; then the place's own escaping follows: Jinja's for HTML, `slack`
for Slack. A field is never a template, a header, a link or a mention.
"""

from __future__ import annotations

import re
import unicodedata

FIELD_CHARACTERS = 120
NAME_CHARACTERS = 60
JOINERS = frozenset("\u200c\u200d")  # format characters that words of living scripts need
INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
SLACK_USER = re.compile(r"[UW][A-Z0-9]{2,20}")


def plain(value: object, limit: int = FIELD_CHARACTERS) -> str:
    """One line of visible text: no line breaks, no control or direction characters, no more than `limit`.

    `://` is broken up, so that mail programs and Slack make no link of it.
    """
    text = unicodedata.normalize("NFC", str(value))
    visible = "".join(" " if _is_invisible(character) else character for character in text)
    line = " ".join(visible.split()).replace("://", ": //")
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def short_name(value: object) -> str:
    """What of a name may stand in a subject: letters, digits, and what names are joined with."""
    kept = "".join(character if _belongs_to_a_name(character) else " " for character in plain(value))
    return " ".join(kept.split())[:NAME_CHARACTERS].strip()


def slack(text: str) -> str:
    """Text for Slack: the three characters that start a mention, a link or an entity are escaped."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def slack_mention(user: str | None) -> str:
    """`<@U0ANA>` for a user id of Slack as the agreement gives it; nothing for anything else."""
    return f"<@{user}>" if user and SLACK_USER.fullmatch(user) else ""


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in INVISIBLE and character not in JOINERS


def _belongs_to_a_name(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN" or character in JOINERS or character in " .'-&"
