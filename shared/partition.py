"""Which partition a key belongs to: MurmurHash2 as Kafka's default partitioner computes it, so that both logs agree."""

from __future__ import annotations

MASK = 0xFFFFFFFF
SEED = 0x9747B28C
MULTIPLIER = 0x5BD1E995


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key, from 0 to `partitions` - 1."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """MurmurHash2 (Austin Appleby), 32 bits, with Kafka's seed; unsigned."""
    whole = len(data) & ~3
    state = SEED ^ len(data)
    for start in range(0, whole, 4):
        word = int.from_bytes(data[start : start + 4], "little") * MULTIPLIER & MASK
        word = (word ^ word >> 24) * MULTIPLIER & MASK
        state = state * MULTIPLIER & MASK ^ word
    if whole < len(data):
        state = (state ^ int.from_bytes(data[whole:], "little")) * MULTIPLIER & MASK
    state = (state ^ state >> 13) * MULTIPLIER & MASK
    return state ^ state >> 15
