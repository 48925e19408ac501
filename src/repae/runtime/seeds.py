"""Randomness as a function of names and numbers, and each process's share of what all of them draw alike."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor

from repae.config import UserError


def seed_of(*key: int | str) -> int:
    """A 64-bit number from a key such as ``(seed, "step", 17)``, the same on every machine (BLAKE2b)."""
    assert key and all(isinstance(part, int | str) for part in key), f"a key is made of numbers and words: {key!r}"
    # Not hash(): Python salts that of text anew in every process.
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big")


def generator(device: torch.device, *key: int | str) -> torch.Generator:
    """A generator on ``device`` that depends on the key only: equal on every process and after every resume.

    Different keys give unrelated streams; a CPU generator uses 32 bits of the 64, others all of them. The numbers
    drawn differ between kinds of device.
    """
    return torch.Generator(device).manual_seed(seed_of(*key))


@dataclass(frozen=True)
class Share:
    """Which samples of the global batch one process treats in one micro-batch.

    Sample j of a global batch of B belongs to micro-batch j // (B / micros), and inside it to the processes by
    contiguous blocks. One process, several processes and any number of micro-batches therefore see the same global
    batches, and what all of them draw for the global batch goes to the same samples.
    """

    micro: int
    micros: int
    rank: int
    size: int

    def __post_init__(self) -> None:
        assert 0 <= self.micro < self.micros and 0 <= self.rank < self.size, f"no such share: {self}"

    def of(self, batch: Shaped[Tensor, "b ..."]) -> Shaped[Tensor, "share ..."]:
        """This share's rows of a global batch, which must be divisible as for `positions`."""
        return batch[self.positions(len(batch))]

    def positions(self, total: int) -> slice:
        """Where this share lies in a global batch of ``total`` samples.

        Raises:
            UserError: the batch cannot be divided evenly.
        """
        parts = self.micros * self.size
        if total % parts:
            raise UserError(
                f"a batch of {total} cannot be divided into {self.micros} micro-batches on {self.size} processes; "
                f"use a multiple of {parts}"
            )
        length = total // parts
        # Processes inside micro-batches: their number moves no sample to another micro-batch.
        first = (self.micro * self.size + self.rank) * length
        return slice(first, first + length)
