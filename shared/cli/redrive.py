"""`baton dlq redrive`: dead letters back to their topic. Without `--go` it only says what it would do.

On the cluster it writes to the service's database itself. On the embedded profile the running server does it; without
one, this command under the server's lock, and the next server publishes what waits in the outbox.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial

from shared.bus import OffsetRange, TopicMissing, TopicPartition
from shared.cli.client import Client, client_of
from shared.cli.log import instant, records
from shared.cli.options import Output, show_json, show_table
from shared.cli.stored import known_service, stored
from shared.db import Database
from shared.lock import running_server, sole_server
from shared.redrive import DeadLetter, Place, Verdict, dead_letter, forget, redrive, redriven
from shared.service import UnknownName, open_bus
from shared.settings import Settings
from shared.topics import dead_letter_topic

AT_ONCE = 100  # records a transaction, and a request

Send = Callable[[Sequence[DeadLetter]], Awaitable[int]]


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
class Plan:
    """What the dead-letter topic holds, and what went back already."""

    letters: Sequence[DeadLetter]
    redriven: frozenset[Place]
    held: dict[TopicPartition, OffsetRange]


def run_redrive(settings: Settings, wanted: Wanted, *, go: bool, output: Output) -> int:
    """Say what would go back, or, with `go`, send it; the exit code."""
    return asyncio.run(_run(settings, wanted, go, output))


async def _run(settings: Settings, wanted: Wanted, go: bool, output: Output) -> int:
    plan = await _plan(settings, wanted)
    chosen = [one for one in plan.letters if one.verdict(plan.redriven, wanted.cap) is Verdict.REDRIVE]
    chosen = chosen[: wanted.count]
    gone = 0
    if go and chosen:
        async with _sender(settings, wanted, plan) as send:
            gone = await _send_all(send, chosen, wanted.per_second)
    _show(wanted, histogram(plan, wanted.cap), gone if go else None, len(chosen), output)
    return 0


async def _plan(settings: Settings, wanted: Wanted) -> Plan:
    topic = dead_letter_topic(wanted.service)
    bus = open_bus(settings, read_only=True)
    try:
        held = await bus.ranges([topic])
        if not held:
            raise TopicMissing(f"{topic} does not exist: run `baton topics ensure`")
        found = [dead_letter(wanted.service, one) async for one in records(bus, topic, {})]
    finally:
        await bus.close()
    async with stored(settings, [wanted.service]) as databases:
        done = await databases[wanted.service].read(partial(redriven, topic=topic))
    return Plan([one for one in found if wanted.holds(one)], done, held)


def histogram(plan: Plan, cap: int) -> list[Line]:
    """By reason and topic, the most frequent first."""
    groups: dict[tuple[str, str], list[DeadLetter]] = {}
    for letter in plan.letters:
        groups.setdefault((letter.reason, letter.topic), []).append(letter)
    lines = []
    for (reason, topic), letters in groups.items():
        counts = Counter(letter.verdict(plan.redriven, cap) for letter in letters)
        times = [letter.record.timestamp for letter in letters]
        by_verdict = {verdict.value: counts[verdict] for verdict in Verdict}
        lines.append(Line(reason, topic, len(letters), min(times), max(times), **by_verdict))
    return sorted(lines, key=lambda line: (-line.records, line.reason, line.topic))


async def _send_all(send: Send, letters: Sequence[DeadLetter], per_second: float | None) -> int:
    """Send them in order, so many a second; how many went."""
    size = AT_ONCE if per_second is None else max(1, min(AT_ONCE, int(per_second)))
    gone = 0
    for start in range(0, len(letters), size):
        if start and per_second is not None:
            await asyncio.sleep(size / per_second)
        gone += await send(letters[start : start + size])
    return gone


@asynccontextmanager
async def _sender(settings: Settings, wanted: Wanted, plan: Plan) -> AsyncIterator[Send]:
    """Who writes: the running embedded server, or this process."""
    if settings.profile == "embedded" and running_server(settings.data_directory) is not None:
        yield partial(_ask, client_of(settings, None, None), wanted)
    elif settings.profile == "embedded":
        with sole_server(settings.data_directory, "baton dlq redrive"):
            async with _writer(settings, wanted, plan) as send:
                yield send
    else:
        async with _writer(settings, wanted, plan) as send:
            yield send


@asynccontextmanager
async def _writer(settings: Settings, wanted: Wanted, plan: Plan) -> AsyncIterator[Send]:
    database = Database(settings.database_url_for(wanted.service), service=wanted.service)
    try:
        await forget(database, plan.held)
        yield partial(redrive, database, cap=wanted.cap)
    finally:
        await database.close()


async def _ask(client: Client, wanted: Wanted, letters: Sequence[DeadLetter]) -> int:
    places = [[one.record.partition, one.record.offset] for one in letters]
    path = f"/v1/dead-letters/{wanted.service}/redrive"
    answer = await asyncio.to_thread(client.post, path, {"places": places, "cap": wanted.cap})
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
