"""A word that is not known, answered as a colleague would: with the one that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, if any is near."""
    near: list[str] = difflib.get_close_matches(word, list(known), n=1)
    return str(near[0]) if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'company_size'?`, or nothing when no known word is near."""
    near = nearest(word, known)
    return f"; did you mean {near!r}?" if near else ""
