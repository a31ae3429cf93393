"""The event log on Apache Kafka: the one place that knows aiokafka, which has no types.

Read in this order: `bus` (the promises), `client` (connections, and what to do when they do not end), `producer`,
`reading` (records out of partitions, unreadable ones too), `consumer` (membership in a group).
"""

from shared.kafka.bus import KafkaBus
from shared.kafka.client import KafkaLimits

__all__ = ["KafkaBus", "KafkaLimits"]
