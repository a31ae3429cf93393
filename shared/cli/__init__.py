"""The command line: `baton --help`. Exit code 0: done; 1: a finding or a failure; 2: the call itself was wrong
(`baton lag`: further behind than `--fail-over` allows).

Every command takes `-o json` for programs. Commands import what they need when they run, so that `--help` is fast.
"""

from __future__ import annotations

import sys

from shared.cli.app import app


def main() -> None:
    """The entry point `baton`."""
    try:
        app()
    except Exception as error:
        from shared.cli.errors import exit_code

        code = exit_code(error)
        if code is None:
            raise
        print(f"baton: {error}", file=sys.stderr)
        sys.exit(code)
