"""The topics of Baton: ONE table, from which the topics themselves, the README's table and the tests are made.

Changes inside a version are additive only. The number of partitions is fixed for a topic's life: keys must not move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

Start = Literal["earliest", "latest"]

PARTITIONS = 12  # divides evenly among 1, 2, 3, 4, 6 and 12 processes
PERSONAL_DATA_RETENTION = timedelta(days=14)  # the stated delay of an erasure
MAX_EVENT_BYTES = 256 * 1024
MAX_RECORD_BYTES = (
    1_000_000  # what a broker takes by default (1048588), less room for headers; dead letters may reach it
)


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic. `consumers`: each reading service, and where a new group starts; `retention` None: compacted."""

    name: str
    key: str
    types: tuple[str, ...]
    producer: str
    consumers: Mapping[str, Start] = field(default_factory=dict)
    partitions: int = PARTITIONS
    retention: timedelta | None = PERSONAL_DATA_RETENTION

    @property
    def compacted(self) -> bool:
        return self.retention is None


def dead_letter_topic(service: str) -> str:
    """Where a service puts the records it cannot use."""
    return f"baton.{service}.dlq.v1"


def group(service: str) -> str:
    """The consumer group of a service."""
    return f"baton.{service}"


TOPICS: tuple[Topic, ...] = (
    Topic(
        name="baton.activities.v1",
        key="lead id",
        types=("activity.recorded", "identity.merged"),
        producer="scoring",
        consumers={"scoring": "earliest"},
    ),
    Topic(
        name="baton.crm.v1",
        key="lead id",
        types=("touch.recorded", "opportunity.changed"),
        producer="scoring",
        consumers={"handoff": "earliest"},
    ),
    Topic(
        name="baton.scores.v1",
        key="lead id",
        types=("lead.scored",),
        producer="scoring",
        retention=None,
    ),
    Topic(
        name="baton.leads.v1",
        key="lead id",
        types=("mql.qualified", "mql.retraction_requested", "lead.merged", "lead.erased"),
        producer="scoring",
        consumers={"handoff": "earliest", "notifier": "earliest"},
    ),
    Topic(
        name="baton.handoffs.v1",
        key="lead id",
        types=(
            "handoff.assigned",
            "handoff.unrouted",
            "handoff.accepted",
            "handoff.touched",
            "handoff.rejected",
            "handoff.recycled",
            "handoff.reassigned",
            "handoff.expired",
            "handoff.qualified",
            "handoff.opportunity",
            "handoff.won",
            "handoff.lost",
            "handoff.retracted",
            "handoff.retraction_refused",
            "handoff.merged",
            "sla.warned",
            "sla.breached",
            "sla.met",
        ),
        producer="handoff",
        consumers={"scoring": "earliest", "notifier": "earliest"},
    ),
    Topic(
        name="baton.nurture.v1",
        key="lead id",
        types=("nurture.suspended", "nurture.requested", "nurture.resumed"),
        producer="handoff",
        consumers={"notifier": "earliest"},
    ),
    Topic(
        name="baton.agreements.v1",
        key="agreement",
        types=("agreement.published",),
        producer="handoff",
        consumers={"scoring": "earliest", "notifier": "earliest"},
        partitions=1,  # one agreement a deployment: its versions need one order
        retention=None,
    ),
    *(
        Topic(name=dead_letter_topic(service), key="original key", types=(), producer=service, partitions=3)
        for service in ("scoring", "handoff", "notifier")
    ),
)


def topic(name: str) -> Topic:
    """The topic of that name. Raises `KeyError` naming the known ones."""
    for known in TOPICS:
        if known.name == name:
            return known
    raise KeyError(f"unknown topic {name!r}; known: {', '.join(known.name for known in TOPICS)}")


def consumed_by(service: str) -> tuple[Topic, ...]:
    """The topics a service reads."""
    return tuple(known for known in TOPICS if service in known.consumers)


def markdown_table() -> str:
    """The table of topics as the README shows it."""
    head = ["| topic | key | types | from -> to | partitions | kept |", "| --- | --- | --- | --- | --- | --- |"]
    return "\n".join([*head, *map(_markdown_row, TOPICS)])


def _markdown_row(known: Topic) -> str:
    types = ", ".join(known.types) or "the record that could not be used, untouched, with the cause in its headers"
    readers = ", ".join(f"{service} ({start})" for service, start in known.consumers.items()) or "whoever asks"
    kept = "last of each key" if known.retention is None else f"{known.retention.days} days"
    return f"| `{known.name}` | {known.key} | {types} | {known.producer} -> {readers} | {known.partitions} | {kept} |"
