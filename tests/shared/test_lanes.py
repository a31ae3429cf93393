from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from shared.bus import Record, TopicPartition
from shared.lanes import Bundle, Lane, bundles

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def lane(partition: int, count: int, *, start: int = 0) -> Lane:
    made = Lane(TopicPartition("t", partition), start)
    made.records.extend(
        Record("t", partition, offset, EPOCH, b"k", b"{}", ()) for offset in range(start, start + count)
    )
    return made


def test_a_small_backlog_over_all_partitions_is_folded_into_one_transaction() -> None:
    (only,) = bundles([lane(2, 3), lane(0, 1), lane(1, 5)], now=0.0, size=100)
    assert [part.lane.place.partition for part in only.slices] == [0, 1, 2]
    assert len(only) == 9


def test_a_large_backlog_is_a_transaction_for_each_partition() -> None:
    made = bundles([lane(0, 250), lane(1, 250)], now=0.0, size=100)
    assert [[part.lane.place.partition for part in bundle.slices] for bundle in made] == [[0], [1]]
    assert [len(bundle) for bundle in made] == [100, 100]


def test_lanes_that_are_busy_revoked_or_waiting_are_left_alone() -> None:
    busy, revoked, waiting, free = lane(0, 1), lane(1, 1), lane(2, 1), lane(3, 1)
    busy.is_busy = revoked.is_revoked = True
    waiting.hold(0, now=5.0, until=6.0)
    assert [bundle.lanes for bundle in bundles([busy, revoked, waiting, free], now=5.5, size=10)] == [(free,)]
    assert waiting in {held for bundle in bundles([waiting], now=6.0, size=10) for held in bundle.lanes}


def test_a_bundle_loses_what_was_moved_by_another_and_keeps_the_rest() -> None:
    moved, kept = lane(0, 2), lane(1, 2)
    bundle = Bundle([moved.head(10), kept.head(10)])
    moved.restart(7)
    assert bundle.still_ours().lanes == (kept,)


def test_what_follows_a_held_record_does_not_overtake_it() -> None:
    held = lane(0, 4)
    bundle = Bundle([held.head(10)])
    first, second = bundle.split()
    record = held.records[1]
    held.hold(record.offset, now=0.0, until=1.0)
    cut = first.without_rest(record)
    held.advance(cut.slices[0].next_position)
    assert not second.still_ours()


@given(st.lists(st.integers(min_value=0, max_value=40), max_size=8), st.integers(min_value=1, max_value=30))
def test_bundles_take_every_ready_lane_once_and_stay_within_their_size(counts: list[int], size: int) -> None:
    lanes = [lane(partition, count) for partition, count in enumerate(counts)]
    made = bundles(lanes, now=0.0, size=size)
    taken = [part.lane.place.partition for bundle in made for part in bundle.slices]
    assert sorted(taken) == [partition for partition, count in enumerate(counts) if count]
    assert all(len(bundle) <= size for bundle in made)


@given(st.lists(st.integers(min_value=1, max_value=9), min_size=1, max_size=5))
def test_splitting_down_to_single_records_keeps_each_record_once_and_in_order(counts: list[int]) -> None:
    whole = Bundle([lane(partition, count).head(100) for partition, count in enumerate(counts)])

    def leaves(bundle: Bundle) -> list[Record]:
        if len(bundle) == 1:
            return [bundle.first]
        return [record for part in bundle.split() for record in leaves(part)]

    assert leaves(whole) == list(whole)
