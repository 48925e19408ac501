"""The endless order in which a data set is seen: a pure function, so nothing about it needs saving."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from repae.runtime.seeds import seed_of

ROUNDS = 12
"""Enough for every order of a small set to be equally likely; large ones would do with fewer."""


class Order:
    """Image index of every position of an endless stream of epochs, each epoch in its own random order.

    Position p belongs to epoch p // size. Inside an epoch the index is p % size sent through a Feistel network over a
    rectangle a little larger than `size`, walked along its cycle until it falls below `size` (generalised Feistel and
    cycle walking: Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). So every epoch is a permutation,
    any position is found without a list of the others, and the order depends on nothing but (size, seed, position).
    The rectangle's sides differ by one, so that one of them is even: else all its permutations had the same parity.

    Args:
        size: number of images, at least 1.
        seed: any integer.
    """

    def __init__(self, size: int, seed: int) -> None:
        assert size >= 1, size
        self.size = size
        side = max(3, math.isqrt(size - 1) + 1)
        self.sides = (np.uint64(side), np.uint64(side + 1))
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

    def flips(self, positions: Int64[np.ndarray, " b"], indices: Int64[np.ndarray, " b"]) -> Bool[np.ndarray, " b"]:
        """Whether the images are mirrored at these positions: fair coins keyed by (seed, image index, epoch)."""
        epochs = (positions // self.size).astype(np.uint64)
        return _mix(_mix(self.flip_key ^ epochs) ^ indices.astype(np.uint64)) >> np.uint64(63) == 1

    def _permute(
        self, value: UInt64[np.ndarray, " b"], keys: UInt64[np.ndarray, "rounds b"]
    ) -> UInt64[np.ndarray, " b"]:
        first, second = self.sides
        left, right = value // second, value % second
        for one, other in zip(keys[::2], keys[1::2], strict=True):
            left = (left + _mix(right ^ one) % first) % first
            right = (right + _mix(left ^ other) % second) % second
        return left * second + right


def _mix(value: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """One step of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), whose arithmetic is modulo 2^64."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
