"""Places where a test may kill this process, exactly as a power cut would. Inert unless BATON_FAILPOINT names one.

`BATON_FAILPOINT=relay.after_publish` kills at the first passage, `relay.after_publish:3` at the third.
"""

from __future__ import annotations

import os
import signal

_name, _, _nth = os.environ.get("BATON_FAILPOINT", "").partition(":")
_passages_left = int(_nth or "1")


def failpoint(name: str) -> None:
    """Kill this process with SIGKILL if the environment asks for it here."""
    global _passages_left
    if name != _name:
        return
    _passages_left -= 1
    if _passages_left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
