"""One lane per assigned partition: the records read but not yet applied, in offset order.

Pure bookkeeping without waiting: what may run now, in which bundles, and what a bundle is cut to when a record must
wait or turns out to be poison.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from shared.bus import Record, TopicPartition


@dataclass(slots=True, eq=False)
class Lane:
    """A partition in hand. `position` is the database's: the offset of the next record to apply."""

    place: TopicPartition
    position: int
    records: deque[Record] = field(default_factory=deque)
    is_busy: bool = False
    is_revoked: bool = False
    is_moved: bool = False  # by somebody else: the reader must seek to `position`
    committed: int = -1  # the hint last given to the group
    ready_at: float = 0.0  # this process's monotonic clock
    waiting_since: dict[int, float] = field(default_factory=dict)  # offset -> when RetryLater first held it
    timeouts: int = 0  # statement time-outs in a row of the record at the head

    def head(self, size: int) -> Slice:
        """The next records to apply, at most `size`."""
        return Slice(self, tuple(islice(self.records, size)))

    def advance(self, position: int) -> None:
        """Everything before `position` is applied."""
        self.position = position
        self.timeouts = 0
        while self.records and self.records[0].offset < position:
            self.waiting_since.pop(self.records.popleft().offset, None)

    def restart(self, position: int) -> None:
        """Somebody else moved the position: what is in hand may be applied already, and is read again from there."""
        self.position = position
        self.is_moved = True
        self.records.clear()
        self.waiting_since.clear()
        self.timeouts = 0

    def hold(self, offset: int, *, now: float, until: float) -> None:
        """The record at `offset`, and what follows it, waits."""
        self.waiting_since.setdefault(offset, now)
        self.ready_at = until

    def waited(self, offset: int, now: float) -> float:
        """Seconds since the record was first held."""
        return now - self.waiting_since.get(offset, now)


@dataclass(frozen=True, slots=True)
class Slice:
    """Consecutive records of one lane, starting at its position."""

    lane: Lane
    records: tuple[Record, ...]

    @property
    def next_position(self) -> int:
        return self.records[-1].offset + 1

    @property
    def is_next(self) -> bool:
        """Still in hand, and its first record the next of its lane."""
        waiting = self.lane.records
        return not self.lane.is_revoked and bool(waiting) and waiting[0] is self.records[0]

    def before(self, offset: int) -> Slice:
        return Slice(self.lane, tuple(record for record in self.records if record.offset < offset))


class Bundle:
    """Slices of several lanes, applied in one transaction, in (topic, partition) order."""

    __slots__ = ("slices",)

    def __init__(self, slices: Iterable[Slice]) -> None:
        filled = (part for part in slices if part.records)
        self.slices = tuple(sorted(filled, key=lambda part: part.lane.place))

    def __len__(self) -> int:
        return sum(len(part.records) for part in self.slices)

    def __iter__(self) -> Iterator[Record]:
        return (record for part in self.slices for record in part.records)

    @property
    def first(self) -> Record:
        return self.slices[0].records[0]

    @property
    def lanes(self) -> tuple[Lane, ...]:
        return tuple(part.lane for part in self.slices)

    def without_rest(self, record: Record) -> Bundle:
        """The same, but nothing of the record's lane from that record on."""
        return Bundle(part.before(record.offset) if part.lane.place == record.place else part for part in self.slices)

    def still_ours(self) -> Bundle:
        """What is left of it when partitions were revoked, moved by somebody else, or held, since it was made."""
        return Bundle(part for part in self.slices if part.is_next)

    def split(self) -> tuple[Bundle, ...]:
        """Smaller bundles to be applied one after the other: a partition each, or the halves of one."""
        if len(self.slices) > 1:
            return tuple(Bundle((part,)) for part in self.slices)
        (part,) = self.slices
        middle = len(part.records) // 2
        return Bundle((Slice(part.lane, part.records[:middle]),)), Bundle((Slice(part.lane, part.records[middle:]),))


def bundles(lanes: Iterable[Lane], *, now: float, size: int) -> Sequence[Bundle]:
    """What can be applied now: free lanes, folded together as long as they fit into one transaction of `size`."""
    ready = [
        lane for lane in lanes if lane.records and not lane.is_busy and not lane.is_revoked and lane.ready_at <= now
    ]
    made: list[Bundle] = []
    together: list[Slice] = []
    room = size
    for part in sorted((lane.head(size) for lane in ready), key=lambda part: len(part.records)):
        if len(part.records) > room and together:
            made.append(Bundle(together))
            together, room = [], size
        together.append(part)
        room -= len(part.records)
    if together:
        made.append(Bundle(together))
    return made
