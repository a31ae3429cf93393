"""What a handler may say about one of its records, by raising: the two outcomes that are no bugs.

Either way the transaction is rolled back whole and the batch runs again, changed as the outcome says.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from shared.envelope import Received


class Outcome(Exception):
    """An answer about one record. Anything else that a handler raises is a bug."""

    def __init__(self, received: Received[Any], reason: str) -> None:
        super().__init__(reason)
        self.received = received
        self.reason = reason


class RetryLater(Outcome):
    """What this record needs is not there yet: its lane waits `delay`, the others go on; in the end, dead letter."""

    def __init__(self, received: Received[Any], reason: str, delay: timedelta = timedelta(seconds=1)) -> None:
        super().__init__(received, reason)
        self.delay = delay


class Reject(Outcome):
    """This record can never be used: it goes to the dead-letter topic, and the lane goes on."""
