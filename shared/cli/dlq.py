"""`baton dlq`: dead letters, each with the cause and the origin that its headers tell."""

from __future__ import annotations

from shared.bus import Bus, Record, TopicMissing, TopicPartition
from shared.cli.log import plain_record, records, with_bus
from shared.cli.options import Output, show_json, show_table
from shared.cli.stored import known_service
from shared.redrive import REPLAYS
from shared.service import UnknownName, service_names
from shared.settings import Settings
from shared.topics import dead_letter_topic

ORIGIN = ("kafka_dlt-original-topic", "kafka_dlt-original-partition", "kafka_dlt-original-offset")
CAUSE = "kafka_dlt-exception-message"
CAUSE_SHOWN = 100


def list_dead(settings: Settings, service: str | None, output: Output) -> None:
    """Print every dead letter of a service, or of all."""
    services = [known_service(service)] if service else list(service_names())

    async def work(bus: Bus) -> list[tuple[str, Record]]:
        return [(name, one) for name in services async for one in records(bus, dead_letter_topic(name), {})]

    found = with_bus(settings, work)
    if output is Output.JSON:
        for name, record in found:
            show_json(_row(name, record))
        return
    rows = [_row(name, record) for name, record in found]
    if not rows:
        print("no dead letters")
        return
    columns = ["place", "at", "origin", "key", "type", "reason", "replays", "cause"]
    show_table(columns, [[str(row[column])[:CAUSE_SHOWN] for column in columns] for row in rows])


def show_dead(settings: Settings, place: str, output: Output) -> int:
    """Print one dead letter whole; 1 if it is not there (any more)."""
    service, partition, offset = _parsed(place)

    async def work(bus: Bus) -> list[Record]:
        where = TopicPartition(dead_letter_topic(service), partition)
        ranges = await bus.ranges([where.topic])
        if not ranges:
            raise TopicMissing(f"{where.topic} does not exist: run `baton topics ensure`")
        held = ranges.get(where)
        if held is None or not held.begin <= offset < held.end:
            return []
        return await bus.read(where, offset, max_records=1, timeout_seconds=10.0)

    found = [record for record in with_bus(settings, work) if record.offset == offset]
    if not found:
        print(f"no dead letter {place}: it was never there, or its retention is over")
        return 1
    plain = plain_record(found[0])
    if output is Output.JSON:
        show_json(plain)
    else:
        headers = plain.pop("headers")
        assert isinstance(headers, dict)
        show_table(["", ""], [*plain.items(), *headers.items()])
    return 0


def _row(service: str, record: Record) -> dict[str, object]:
    headers = {name: value.decode(errors="replace") for name, value in record.headers}
    return {
        "place": f"{service}/{record.partition}/{record.offset}",
        "at": record.timestamp.isoformat(timespec="seconds"),
        "origin": "/".join(headers.get(name, "?") for name in ORIGIN),
        "key": (record.key or b"").decode(errors="replace"),
        "type": headers.get("ce_type", ""),
        "reason": headers.get("baton-reason-code", ""),
        "replays": headers.get(REPLAYS, "0"),
        "cause": headers.get(CAUSE, ""),
    }


def _parsed(place: str) -> tuple[str, int, int]:
    parts = place.split("/")
    if len(parts) != 3 or not (parts[1].isdecimal() and parts[2].isdecimal()):
        raise UnknownName(f"{place!r} is no dead letter; expected service/partition/offset, e.g. scoring/0/12")
    return known_service(parts[0]), int(parts[1]), int(parts[2])
