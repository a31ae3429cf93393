"""`baton keys new`: an API key for a caller, shown once, and the entry under which the services know it."""

from __future__ import annotations

from collections.abc import Sequence

from shared.cli.options import Output, show_json
from shared.security import new_key


def make_key(name: str, scopes: Sequence[str], output: Output) -> None:
    """Print both. Raises `KeyEntryInvalid`."""
    key, entry = new_key(scopes, name=name)
    if output is Output.JSON:
        show_json({"key": key, "entry": entry})
        return
    print(f"key    {key}")
    print(f"entry  {entry}")
    print("Give the key to the caller: it is not kept. Add the entry to BATON_API_KEYS, separated by a space.")
