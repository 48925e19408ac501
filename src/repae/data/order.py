"""The endless order in which a data set is seen: a pure function, so nothing about it needs saving."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from repae.runtime.seeds import seed_of

ROUNDS = 8


class Order:
    """Image index of every position of an endless stream of epochs, each epoch in its own random order.

    Position p belongs to epoch p // size. Inside an epoch the index is p % size sent through a Feistel network over the
    next power of four, walked along its cycle until it falls below `size` (format-preserving encryption by cycle
    walking: Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). So every epoch is a permutation, any
    position is found without a list of the others, and the order depends on nothing but (size, seed, position).

    Args:
        size: number of images, at least 1.
        seed: any integer.
    """

    def __init__(self, size: int, seed: int) -> None:
        assert size >= 1, size
        self.size = size
        self.half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
        self.mask = (np.uint64(1) << self.half) - np.uint64(1)
        self.round_keys = np.array([seed_of(seed, "order", number) for number in range(ROUNDS)], dtype=np.uint64)
        self.flip_key = np.array([seed_of(seed, "flip")], dtype=np.uint64)

    def indices(self, positions: Int64[np.ndarray, " b"]) -> Int64[np.ndarray, " b"]:
        """Image index, 0..size-1, of every position (0 or more)."""
        epochs, value = (part.astype(np.uint64) for part in np.divmod(positions, self.size))
        keys = _mix(self.round_keys[:, None] ^ _mix(epochs)[None])
        value = self._permute(value, keys)
        outside = np.flatnonzero(value >= self.size)
        while outside.size:
            value[outside] = self._permute(value[outside], keys[:, outside])
            outside = outside[value[outside] >= self.size]
        return value.astype(np.int64)

    def flips(self, positions: Int64[np.ndarray, " b"]) -> Bool[np.ndarray, " b"]:
        """Whether the image at each position is mirrored: a fair coin keyed by (seed, image index, epoch)."""
        epochs, indices = (positions // self.size).astype(np.uint64), self.indices(positions).astype(np.uint64)
        return _mix(_mix(self.flip_key ^ epochs) ^ indices) >> np.uint64(63) == 1

    def _permute(
        self, value: UInt64[np.ndarray, " b"], keys: UInt64[np.ndarray, "rounds b"]
    ) -> UInt64[np.ndarray, " b"]:
        left, right = value >> self.half, value & self.mask
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & self.mask)
        return left << self.half | right


def _mix(value: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """One step of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), whose arithmetic is modulo 2^64."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
