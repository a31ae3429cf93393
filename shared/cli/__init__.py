"""The command line: `baton --help`. Exit code 0: done; 1: a finding or a failure; 2: the call itself was wrong
(`baton lag`: further behind than `--fail-over` allows).

Every command takes `-o json` for programs: the answer is one JSON object on standard output (`tail` and `dlq ls`: one a
line, so nothing for nothing), an error is `{"error": ...}` on standard error. Commands import what they need when they
run, so that `--help` is fast.
"""

from __future__ import annotations

import re
import sys

from shared.cli.app import app

JSON_WANTED = re.compile(r"(^| )(-o|--output)[= ]?json( |$)")


def main() -> None:
    """The entry point `baton`."""
    as_json = JSON_WANTED.search(" ".join(sys.argv)) is not None  # also of a call too wrong to be parsed
    try:
        code = app(standalone_mode=not as_json)
    except Exception as error:
        from shared.cli.errors import fail

        fail(error, "baton", as_json=as_json)
    sys.exit(code)
