"""The door: whoever waits shares one commit.

One committer per process. While a commit is under way the next group gathers, so that a lone request waits for nobody
and a crowd costs one flush. What was refused by its source alone joins too: its place in quarantine must be durable.

Trouble of the database is everybody's: it is raised to the group and to all who wait behind it, because a 503 that
comes minutes later helps nobody, and a sender that repeats is recognised by its ids. For the same reason nobody waits
longer than `WAIT_SECONDS`.
An error of the data is one item's: the group is halved until that item stands alone, and it goes to quarantine.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog
from sqlalchemy.exc import DataError, IntegrityError

from services.scoring.admit import admit
from services.scoring.arrivals import Delivery, Entry, Verdict
from shared.clock import uuid7
from shared.db import Database, DatabaseError, Session
from shared.failpoints import failpoint
from shared.outbox import EventTooLarge
from shared.telemetry import traceparent

GROUP_REQUESTS = 64  # tried: 12k events/s with one writer; more gains little and makes the last one wait
GROUP_ITEMS = 1000
WAITING_ITEMS = 20_000  # about two seconds of work: who would wait longer is told to come back
WAITING_BYTES = 64 * 1024 * 1024  # of bodies and items; read into objects they take a few times that
WAIT_SECONDS = 10.0  # senders give up after 5 (HubSpot) to 30 seconds, and send again
ATTEMPTS = 2  # one more than none, for a conflict or a connection that was lost while it was idle; others wait

DATA_ERRORS = (DataError, IntegrityError, EventTooLarge, UnicodeError, OverflowError)

log = structlog.get_logger(__name__)


class DoorClosed(Exception):
    """Too many wait, one waited too long, or this process is stopping: nothing is known to be stored, send it again."""


@dataclass(slots=True)
class _Ticket:
    """One request in the queue, and the verdicts it is still waiting for."""

    delivery: Delivery
    traceparent: str
    done: asyncio.Future[list[Verdict]]
    weight: int
    delivery_id: str = field(default_factory=uuid7)
    verdicts: dict[int, Verdict] = field(default_factory=dict)

    def entries(self) -> list[_Place]:
        common = (self.delivery_id, self.delivery.source, self.delivery.body, self.traceparent)
        return [_Place(self, place, Entry(*common, item)) for place, item in enumerate(self.delivery.items)]

    def answer(self, place: int, verdict: Verdict) -> None:
        self.verdicts[place] = verdict
        if len(self.verdicts) == len(self.delivery.items) and not self.done.done():
            self.done.set_result([self.verdicts[place] for place in sorted(self.verdicts)])

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(frozen=True, slots=True)
class _Place:
    ticket: _Ticket
    place: int
    entry: Entry


class Door:
    """The way in, for all requests of a process."""

    def __init__(self, database: Database, *, wait_seconds: float = WAIT_SECONDS) -> None:
        self._database = database
        self._wait_seconds = wait_seconds
        self._waiting: deque[_Ticket] = deque()
        self._waiting_items = self._waiting_bytes = 0
        self._committer: asyncio.Task[None] | None = None
        self._is_closed = False

    async def submit(self, delivery: Delivery) -> list[Verdict]:
        """The verdict of each item, in order, once all of them are committed.

        Raises `DoorClosed`, or `DatabaseError` for trouble after which nothing is known to be stored.
        """
        ticket = _Ticket(delivery, traceparent(), asyncio.get_running_loop().create_future(), weight(delivery))
        if self._is_closed or not self._has_room(ticket):
            raise DoorClosed("the door takes nothing more at the moment")
        if not delivery.items:
            return []
        self._waiting.append(ticket)
        self._waiting_items += len(delivery.items)
        self._waiting_bytes += ticket.weight
        if self._committer is None or self._committer.done():
            self._committer = asyncio.create_task(self._commit_all(), name="door")
        try:
            async with asyncio.timeout(self._wait_seconds):
                return await ticket.done
        except TimeoutError as error:
            raise DoorClosed(f"not stored within {self._wait_seconds:g} s, as far as is known") from error

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop; then nobody else gets in, and who is in gets an answer."""
        await stop.wait()
        await self.close()

    async def close(self) -> None:
        """Refuse what comes, settle what waits."""
        self._is_closed = True
        if self._committer is not None:
            await asyncio.wait([self._committer])

    def _has_room(self, ticket: _Ticket) -> bool:
        """Whether one more may wait; whoever is alone always may."""
        items = self._waiting_items + len(ticket.delivery.items)
        is_within = items <= WAITING_ITEMS and self._waiting_bytes + ticket.weight <= WAITING_BYTES
        return is_within or not self._waiting

    async def _commit_all(self) -> None:
        group: list[_Ticket] = []
        try:
            while self._waiting:
                group = self._gather()
                try:
                    await self._settle([place for ticket in group for place in ticket.entries()])
                except DatabaseError as error:
                    self._turn_away(group, error)
        finally:
            self._turn_away(group, DoorClosed("the process is stopping"))

    def _turn_away(self, group: Sequence[_Ticket], error: Exception) -> None:
        """Answer this group and everybody who waits at this moment."""
        for ticket in (*group, *self._waiting):
            ticket.fail(error)
        self._waiting.clear()
        self._waiting_items = self._waiting_bytes = 0

    def _gather(self) -> list[_Ticket]:
        """The next group: at least one request, without those whose sender has gone."""
        group: list[_Ticket] = []
        items = 0
        while self._waiting and len(group) < GROUP_REQUESTS:
            size = len(self._waiting[0].delivery.items)
            if group and items + size > GROUP_ITEMS:
                break
            ticket = self._waiting.popleft()
            self._waiting_items -= size
            self._waiting_bytes -= ticket.weight
            if not ticket.done.done():
                group.append(ticket)
                items += size
        return group

    async def _settle(self, places: Sequence[_Place]) -> None:
        """Commit these together; halve them where one spoils it for the others. Raises `DatabaseError`."""
        if not places:
            return
        try:
            verdicts = await self._commit([place.entry for place in places])
        except DatabaseError:
            raise
        except Exception as error:
            if len(places) > 1:
                middle = len(places) // 2
                await self._settle(places[:middle])
                await self._settle(places[middle:])
            else:
                await self._refuse(places[0], error)
        else:
            for place, verdict in zip(places, verdicts, strict=True):
                place.ticket.answer(place.place, verdict)

    async def _refuse(self, place: _Place, error: Exception) -> None:
        """Keep in quarantine what the database does not take; anything else is a bug of ours, and no 2xx."""
        log.warning("item_spoils_group", error=type(error).__name__, source=place.entry.source)
        if not isinstance(error, DATA_ERRORS):
            place.ticket.fail(error)
            return
        try:
            (verdict,) = await self._commit([place.entry.refused(f"cannot be stored ({type(error).__name__})")])
        except DatabaseError:
            raise
        except Exception as second:
            place.ticket.fail(second)
        else:
            place.ticket.answer(place.place, verdict)

    async def _commit(self, entries: Sequence[Entry]) -> list[Verdict]:
        async def work(session: Session) -> list[Verdict]:
            verdicts = await admit(session, entries)
            failpoint("intake.before_commit")
            return verdicts

        verdicts = await self._database.run(work, attempts=ATTEMPTS)
        failpoint("intake.after_commit")
        return verdicts


def weight(delivery: Delivery) -> int:
    """How much memory a delivery takes while it waits, about: a packed body is small, what is in it is not."""
    return len(delivery.body) + sum(len(item.item) for item in delivery.items)
