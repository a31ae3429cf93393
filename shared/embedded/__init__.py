"""The event log in one SQLite file, for one machine: what Apache Kafka promises us, under the same conformance suite.

Read in this order: `bus` (the promises), `log` (the file), `group` (who reads which partition), `consumer`.
"""

from shared.embedded.bus import EmbeddedBus

__all__ = ["EmbeddedBus"]
