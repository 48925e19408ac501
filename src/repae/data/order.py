"""The endless order in which a data set is seen: a pure function, so nothing about it needs saving."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from repae.runtime.seeds import seed_of

ROUNDS = 12
"""Enough for every order of a small set to be equally likely; large ones would do with fewer."""

WINDOW = 16
"""Blocks that are mixed with each other in a block-wise order."""

Numbers = Int64[np.ndarray, " b"]
"""Positions, places or image indices."""

Unsigned = UInt64[np.ndarray, " b"]
"""Keys, and what is mixed with them modulo 2^64."""


class Order:
    """Image index of every position of an endless stream of epochs, each epoch in its own random order.

    Position p belongs to epoch p // size. Inside an epoch the index is p % size sent through a `_Shuffle`. So every
    epoch is a permutation, any position is found without a list of the others, and the order depends on nothing but
    (size, seed, block, position).

    With `block`, consecutive images stay near each other, for storage where jumping is slow: blocks of `block` images
    come in random order, and the images of `WINDOW` successive blocks in random order among each other. Only so many
    blocks are ever in use at once.
    """

    def __init__(self, size: int, seed: int, block: int | None = None) -> None:
        assert size >= 1 and (block is None or block >= 1), (size, block)
        self.size = size
        self.block = None if block is None or block >= size else block
        self.flip_key = np.array([seed_of(seed, "flip")], dtype=np.uint64)
        if self.block is None:
            self._images = _Shuffle(size, seed, "order")
        else:
            self._blocks = _Shuffle(-(-size // self.block), seed, "blocks")
            self._lacking = -size % self.block
            self._windows = {length: _Shuffle(length, seed, "window") for length in self._window_lengths()}

    def indices(self, positions: Numbers) -> Numbers:
        """Image index, 0..size-1, of every position (0 or more)."""
        epochs, places = np.divmod(positions, self.size)
        if self.block is None:
            return self._images(places, epochs.astype(np.uint64))
        return self._by_blocks(places, epochs.astype(np.uint64), self.block)

    def flips(self, positions: Numbers, indices: Numbers) -> Bool[np.ndarray, " b"]:
        """Whether the images are mirrored at these positions: fair coins keyed by (seed, image index, epoch)."""
        epochs = (positions // self.size).astype(np.uint64)
        # By image and epoch, not by place: a flip stays when `block` changes the order.
        return _mix(_mix(self.flip_key ^ epochs) ^ indices.astype(np.uint64)) >> np.uint64(63) == 1

    def _by_blocks(self, places: Numbers, epochs: Unsigned, block: int) -> Numbers:
        """The last block may lack images. Where it comes among the others, a gap of these is left in the counting."""
        span, blocks = WINDOW * block, self._blocks.size
        short = self._blocks.inverse(np.full_like(places, blocks - 1), epochs)
        short_window = short // WINDOW
        windows = (places + np.where(places >= (short_window + 1) * span - self._lacking, self._lacking, 0)) // span
        starts = windows * span - np.where(windows > short_window, self._lacking, 0)
        lengths = np.minimum(WINDOW, blocks - windows * WINDOW) * block
        lengths -= np.where(windows == short_window, self._lacking, 0)
        inside = places - starts
        keys = _mix(epochs) + windows.astype(np.uint64)
        for length, shuffle in self._windows.items():
            here = np.flatnonzero(lengths == length)
            inside[here] = shuffle(inside[here], keys[here])
        gap = (windows == short_window) & (inside >= (short % WINDOW + 1) * block - self._lacking)
        slots, rows = np.divmod(inside + np.where(gap, self._lacking, 0), block)
        return self._blocks(windows * WINDOW + slots, epochs) * block + rows

    def _window_lengths(self) -> set[int]:
        """Images that a window can have: full or the last one, with or without the block that lacks some."""
        assert self.block is not None
        last = (self._blocks.size - 1) % WINDOW + 1
        wholes = {min(WINDOW, self._blocks.size) * self.block, last * self.block}
        return wholes | {whole - self._lacking for whole in wholes}


class _Shuffle:
    """For every key, a permutation of 0..size-1 that is computed value by value.

    A Feistel network over a rectangle a little larger than `size`, walked along its cycle until it falls below `size`
    (generalised Feistel and cycle walking: Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). The
    rectangle's sides differ by one, so that one of them is even: else all its permutations had the same parity.
    """

    def __init__(self, size: int, seed: int, purpose: str) -> None:
        # Nearly square, and hardly larger than needed: what falls outside has to be walked once more.
        side = max(3, math.isqrt(size - 1) + 1)
        self.size = size
        self.sides = (np.uint64(side), np.uint64(side + 1))
        self.round_keys = np.array([seed_of(seed, purpose, number) for number in range(ROUNDS)], dtype=np.uint64)

    def __call__(self, values: Numbers, keys: Unsigned) -> Numbers:
        return self._walk(values, keys, self._forward)

    def inverse(self, values: Numbers, keys: Unsigned) -> Numbers:
        return self._walk(values, keys, self._backward)

    def _walk(self, values: Numbers, keys: Unsigned, step: Callable[..., np.ndarray]) -> Numbers:
        value, rounds = values.astype(np.uint64), _mix(self.round_keys[:, None] ^ _mix(keys)[None])
        value = step(value, rounds)
        outside = np.flatnonzero(value >= self.size)
        while outside.size:
            value[outside] = step(value[outside], rounds[:, outside])
            outside = outside[value[outside] >= self.size]
        return value.astype(np.int64)

    def _forward(self, value: Unsigned, keys: UInt64[np.ndarray, "rounds b"]) -> Unsigned:
        first, second = self.sides
        left, right = value // second, value % second
        for one, other in zip(keys[::2], keys[1::2], strict=True):
            left = (left + _mix(right ^ one) % first) % first
            right = (right + _mix(left ^ other) % second) % second
        return left * second + right

    def _backward(self, value: Unsigned, keys: UInt64[np.ndarray, "rounds b"]) -> Unsigned:
        first, second = self.sides
        left, right = value // second, value % second
        for one, other in zip(keys[-2::-2], keys[::-2], strict=True):
            right = (right + second - _mix(left ^ other) % second) % second
            left = (left + first - _mix(right ^ one) % first) % first
        return left * second + right


def _mix(value: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """One step of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), whose arithmetic is modulo 2^64."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
