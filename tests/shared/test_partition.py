"""Keys to partitions, against the published implementation that other programs use."""

from __future__ import annotations

from aiokafka.partitioner import DefaultPartitioner, murmur2
from hypothesis import given
from hypothesis import strategies as st

from shared import partition


@given(st.binary(max_size=80))
def test_the_hash_is_the_one_that_kafkas_clients_compute(key: bytes) -> None:
    assert partition.murmur2(key) == murmur2(key) % 2**32


@given(st.binary(max_size=80), st.integers(1, 100))
def test_a_key_has_the_partition_that_kafkas_clients_choose(key: bytes, partitions: int) -> None:
    numbers = list(range(partitions))
    assert partition.partition_of(key, partitions) == DefaultPartitioner()(key, numbers, numbers)
