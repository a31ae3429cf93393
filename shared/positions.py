"""Where a service is in each partition: rows of its own database, moved in the transaction of the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shared.bus import TopicPartition
from shared.db import Session
from shared.sql import sql

MOVE = sql(
    """
    WITH ours AS (
        SELECT topic AS our_topic, partition AS our_partition FROM positions
        JOIN {rows} ON topic = rows.of_topic AND partition = rows.of_partition
        ORDER BY topic, partition {for_update_of_positions}
    )
    UPDATE positions SET next_offset = rows.next, moved_at = clock_timestamp()
    FROM {rows}, ours
    WHERE topic = rows.of_topic AND partition = rows.of_partition
      AND our_topic = rows.of_topic AND our_partition = rows.of_partition
      AND next_offset = rows.expected
    RETURNING topic, partition, dead_in_row
    """,
    of_topic="text",
    of_partition="bigint",
    expected="bigint",
    next="bigint",
)
REMEMBER = sql(
    """
    INSERT INTO positions (topic, partition, next_offset, moved_at)
    SELECT of_topic, of_partition, next, clock_timestamp() FROM {rows} WHERE true
    ON CONFLICT (topic, partition) DO NOTHING
    """,
    of_topic="text",
    of_partition="bigint",
    next="bigint",
)
READ = sql("SELECT topic, partition, next_offset FROM positions")
COUNT_DEAD = sql(
    """
    UPDATE positions SET dead_in_row = rows.count FROM {rows}
    WHERE positions.topic = rows.of_topic AND positions.partition = rows.of_partition
    """,
    of_topic="text",
    of_partition="bigint",
    count="bigint",
)


async def move(session: Session, moves: Sequence[tuple[str, int, int, int]]) -> dict[TopicPartition, int]:
    """Lock and move positions: (topic, partition, expected, next). Those that stood at `expected`, each with its number
    of dead letters in a row; a place that is absent was moved by somebody else."""
    rows = await session.execute(MOVE, moves)
    return {TopicPartition(row.topic, row.partition): row.dead_in_row for row in rows}


async def resolve(session: Session, starts: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """The position of each place; where there is none yet, `starts` is stored as its first, once and for all."""
    await session.execute(REMEMBER, sorted((*place, offset) for place, offset in starts.items()))
    known = await stored(session)
    return {place: known[place] for place in starts}


async def stored(session: Session) -> dict[TopicPartition, int]:
    """The offset of the next record to apply, for each place this service has ever read."""
    return {TopicPartition(row.topic, row.partition): row.next_offset for row in await session.execute(READ)}


async def set_dead_in_row(session: Session, counts: Mapping[TopicPartition, int]) -> None:
    """Store how many records in a row were dead-lettered; the rows are locked by `move` already."""
    await session.execute(COUNT_DEAD, [(*place, count) for place, count in counts.items()])
