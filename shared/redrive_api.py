"""The door for `baton dlq redrive` beside a running embedded server, which alone writes its data."""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from shared.bus import Bus, BusError, Record, TopicPartition
from shared.db import Database
from shared.redrive import CAP, dead_letter, forget, redrive
from shared.security import Keyring, Scope
from shared.topics import dead_letter_topic
from shared.web import RETRY_AFTER, Problem, requires

MAX_PLACES = 500
READ_SECONDS = 5.0

Offset = Annotated[int, Field(ge=0, lt=2**40)]


class Chosen(BaseModel):
    """Dead letters by (partition, offset), in the order in which they go back."""

    model_config = ConfigDict(extra="forbid")
    places: Annotated[list[tuple[Offset, Offset]], Field(max_length=MAX_PLACES)]
    cap: Annotated[int, Field(ge=1)] = CAP


def redrive_routes(database: Database, bus: Bus, keyring: Keyring) -> APIRouter:
    """`POST /v1/dead-letters/{service}/redrive`, for administrators. What went back before does not go again."""
    service, topic = database.service, dead_letter_topic(database.service)
    router = APIRouter(tags=["dead letters"], dependencies=[Depends(requires(keyring, Scope.ADMIN))])

    @router.post(f"/v1/dead-letters/{service}/redrive", operation_id=f"redrive_{service}")
    async def send_back(chosen: Chosen) -> dict[str, int]:
        try:
            await forget(database, await bus.ranges([topic]))
            letters = [dead_letter(service, record) for record in await _read(bus, topic, chosen.places)]
        except BusError as error:
            raise Problem(503, "/problems/unavailable", "Unavailable", str(error), RETRY_AFTER) from error
        return {"redriven": await redrive(database, letters, cap=chosen.cap)}

    return router


async def _read(bus: Bus, topic: str, places: list[tuple[int, int]]) -> list[Record]:
    """The records at these places that are still there, in this order."""
    found: dict[tuple[int, int], Record] = {}
    wanted: dict[int, set[int]] = defaultdict(set)
    held = await bus.ranges([topic])
    for partition, offset in places:
        offsets = held.get(TopicPartition(topic, partition))
        if offsets is not None and offsets.begin <= offset < offsets.end:
            wanted[partition].add(offset)
    for partition, offsets_of in wanted.items():
        position, last = min(offsets_of), max(offsets_of)
        while position <= last:
            page = await bus.read(
                TopicPartition(topic, partition), position, max_records=MAX_PLACES, timeout_seconds=READ_SECONDS
            )
            if not page:
                break
            found.update({(partition, record.offset): record for record in page if record.offset in offsets_of})
            position = page[-1].offset + 1
    return [found[place] for place in places if place in found]
