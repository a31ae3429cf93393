"""Who reads which partition: consumer groups among the members of this process, rebalanced eagerly as Kafka's are.

A change of membership starts a new generation. Each member gives up what it holds when it fetches next; only when
nobody holds anything of an older generation are the partitions dealt out again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from shared.bus import TopicPartition


@dataclass(slots=True, eq=False)
class Member:
    """A consumer in its group. `held` None: it holds nothing and waits for its share."""

    places: frozenset[TopicPartition]  # every partition of the topics it reads
    held: frozenset[TopicPartition] | None = None
    generation: int = 0


@dataclass(slots=True)
class Group:
    """The members of one group, in the order in which they joined. `changed` wakes the fetches that wait."""

    changed: Callable[[], None]
    generation: int = 0
    members: list[Member] = field(default_factory=list)

    def join(self, member: Member) -> None:
        self.members.append(member)
        self._begin_generation()

    def leave(self, member: Member) -> None:
        if member in self.members:
            self.members.remove(member)
            self._begin_generation()

    def must_give_up(self, member: Member) -> bool:
        return member.held is not None and member.generation != self.generation

    def give_up(self, member: Member) -> None:
        member.held = None
        self.changed()

    def take_share(self, member: Member) -> frozenset[TopicPartition] | None:
        """The member's partitions of this generation; None while others have not given up theirs, or if it has them."""
        if member.held is not None or any(self.must_give_up(other) for other in self.members):
            return None
        member.generation = self.generation
        member.held = frozenset(place for place, reader in _dealt(self.members) if reader is member)
        return member.held

    def _begin_generation(self) -> None:
        self.generation += 1
        self.changed()


def _dealt(members: Sequence[Member]) -> list[tuple[TopicPartition, Member]]:
    """Partitions in order, one to each member in turn among those that read the topic."""
    dealt = []
    for turn, place in enumerate(sorted(frozenset().union(*(member.places for member in members)))):
        readers = [member for member in members if place in member.places]
        dealt.append((place, readers[turn % len(readers)]))
    return dealt
