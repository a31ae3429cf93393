"""A word that is not known, answered as a colleague would: with the one that was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from itertools import takewhile


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, if any is near. What all of them begin with makes none of them near."""
    names = list(known)
    start = _common_start(names)
    start = start if word.startswith(start) else ""
    by_rest = {name.removeprefix(start): name for name in names}
    near: list[str] = difflib.get_close_matches(word.removeprefix(start), list(by_rest), n=1)
    return str(by_rest[near[0]]) if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'company_size'?`, or nothing when no known word is near."""
    near = nearest(word, known)
    return f"; did you mean {near!r}?" if near else ""


def _common_start(names: list[str]) -> str:
    """The whole parts that several names share: `BATON_`, `baton.`."""
    common = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False)) if len(names) > 1 else ()
    return re.sub(r"[^._:/]*$", "", "".join(letters[0] for letters in common))
