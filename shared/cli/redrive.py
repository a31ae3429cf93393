"""`baton dlq redrive`: dead letters back to their topic. Without `--go` it only says what it would do.

On the cluster it writes to the service's database itself. On the embedded profile the running server does it; without
one, this command under the server's lock, and the next server publishes what waits in the outbox.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial

from shared.bus import Bus, TopicMissing
from shared.cli.client import Client, client_of
from shared.cli.log import instant, records
from shared.cli.options import Output, show_json, show_table
from shared.cli.stored import known_service, stored
from shared.db import Database
from shared.lock import running_server, sole_server
from shared.redrive import AT_ONCE, DeadLetter, Verdict, dead_letter, redriven, send_back
from shared.service import UnknownName, open_bus
from shared.settings import Settings
from shared.topics import dead_letter_topic

Places = Sequence[tuple[int, int]]  # partition, offset
Send = Callable[[Places], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters of a service, how often one may go back, and how fast they go; None: no limit."""

    service: str
    since: datetime | None
    reason: str | None
    key: str | None
    cap: int
    count: int | None
    per_second: float | None

    @classmethod
    def of(
        cls, service: str, *, since: str | None, everything: bool, only: tuple[str | None, str | None], cap: int
    ) -> Wanted:
        """From the words of a command line; `only`: reason, key. Raises `UnknownName`."""
        if (since is None) is not everything:
            raise UnknownName("say which dead letters: either --since TIME (or an age: 2h), or --all")
        return cls(known_service(service), instant(since) if since else None, *only, cap, None, None)

    def holds(self, letter: DeadLetter) -> bool:
        return (
            (self.since is None or letter.record.timestamp >= self.since)
            and (self.reason is None or letter.reason == self.reason)
            and (self.key is None or (letter.record.key or b"").decode(errors="replace") == self.key)
        )


@dataclass(frozen=True, slots=True)
class Line:
    """One bar of the histogram."""

    reason: str
    topic: str
    records: int
    first: datetime
    last: datetime
    redrive: int
    done: int
    capped: int
    unplayable: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What is kept of a dead letter while a person decides: there may be many, and large ones."""

    place: tuple[int, int]
    at: datetime
    reason: str
    topic: str
    verdict: Verdict


def run_redrive(settings: Settings, wanted: Wanted, *, go: bool, output: Output) -> int:
    """Say what would go back, or, with `go`, send it; the exit code."""
    return asyncio.run(_run(settings, wanted, go, output))


async def _run(settings: Settings, wanted: Wanted, go: bool, output: Output) -> int:
    bus = open_bus(settings, read_only=True)
    try:
        seen = await _look(settings, bus, wanted)
        chosen = [one.place for one in seen if one.verdict is Verdict.REDRIVE][: wanted.count]
        gone = 0
        if go and chosen:
            async with _sender(settings, bus, wanted) as send:
                gone = await _send_all(send, chosen, wanted.per_second)
    finally:
        await bus.close()
    _show(wanted, histogram(seen), gone if go else None, len(chosen), output)
    return 0


async def _look(settings: Settings, bus: Bus, wanted: Wanted) -> list[Seen]:
    """Every dead letter that is wanted, and what becomes of it."""
    topic = dead_letter_topic(wanted.service)
    if not await bus.ranges([topic]):
        raise TopicMissing(f"{topic} does not exist: run `baton topics ensure`")
    async with stored(settings, [wanted.service]) as databases:
        done = await databases[wanted.service].read(partial(redriven, topic=topic))
    seen = []
    async for record in records(bus, topic, {}):
        letter = dead_letter(wanted.service, record)
        if wanted.holds(letter):
            place, verdict = (record.partition, record.offset), letter.verdict(done, wanted.cap)
            seen.append(Seen(place, record.timestamp, letter.reason, letter.topic, verdict))
    return seen


def histogram(seen: Iterable[Seen]) -> list[Line]:
    """By reason and topic, the most frequent first."""
    groups: dict[tuple[str, str], list[Seen]] = defaultdict(list)
    for one in seen:
        groups[one.reason, one.topic].append(one)
    lines = []
    for (reason, topic), members in groups.items():
        counts = Counter(one.verdict for one in members)
        by_verdict = {verdict.value: counts[verdict] for verdict in Verdict}
        first, last = min(one.at for one in members), max(one.at for one in members)
        lines.append(Line(reason, topic, len(members), first, last, **by_verdict))
    return sorted(lines, key=lambda line: (-line.records, line.reason, line.topic))


async def _send_all(send: Send, places: Places, per_second: float | None) -> int:
    """Send them in order, so many a second; how many went."""
    size = AT_ONCE if per_second is None else max(1, min(AT_ONCE, int(per_second)))
    gone = 0
    for start in range(0, len(places), size):
        if start and per_second is not None:
            await asyncio.sleep(size / per_second)
        gone += await send(places[start : start + size])
    return gone


@asynccontextmanager
async def _sender(settings: Settings, bus: Bus, wanted: Wanted) -> AsyncIterator[Send]:
    """Who writes: the running embedded server, or this process."""
    is_embedded = settings.profile == "embedded"
    if is_embedded and running_server(settings.data_directory) is not None:
        yield partial(_ask, client_of(settings, None, None), wanted)
        return
    with sole_server(settings.data_directory, "baton dlq redrive") if is_embedded else nullcontext():
        database = Database(settings.database_url_for(wanted.service), service=wanted.service)
        try:
            yield partial(send_back, database, bus, cap=wanted.cap)
        finally:
            await database.close()


async def _ask(client: Client, wanted: Wanted, places: Places) -> int:
    path = f"/v1/dead-letters/{wanted.service}/redrive"
    answer = await asyncio.to_thread(client.post, path, {"places": list(places), "cap": wanted.cap})
    return int(answer["redriven"])


def _show(wanted: Wanted, lines: Sequence[Line], gone: int | None, chosen: int, output: Output) -> None:
    """`gone` None: it was only asked what would happen. What went is counted under `redrive` as it was before."""
    if output is Output.JSON:
        show_json(
            {
                "service": wanted.service,
                "reasons": [asdict(line) for line in lines],
                "chosen": chosen,
                "redriven": gone or 0,
                "dry": gone is None,
            }
        )
        return
    if not lines:
        print("no such dead letters")
        return
    columns = ["reason", "topic", "records", *Verdict, "first", "last"]
    rows = [asdict(line) for line in lines]
    for row in rows:
        row.update({name: row[name].isoformat(timespec="seconds") for name in ("first", "last")})
    show_table(columns, [[row[str(column)] for column in columns] for row in rows])
    if gone is None:
        print(f"{chosen} would go back; nothing was done. With --go they do.")
    else:
        print(f"{gone} went back, by the outbox of {wanted.service}.")
