"""A part of the shards for one machine, and its own corner of the folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from repae.config import Busy, UserError, locked

PATIENCE = 5.0
"""Seconds to wait for the lock: processes of a killed command end within one image."""


class MachinePart(NamedTuple):
    """Part ``number`` of ``of``, counted from 1."""

    number: int
    of: int

    @classmethod
    def read(cls, text: str) -> MachinePart:
        """From a text such as ``2/4``; any other is refused as `UserError`."""
        number, slash, of = text.partition("/")
        if slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of):
            return cls(int(number), int(of))
        raise UserError(f"part is {text!r}; allowed: K/N with K from 1 to N, such as 2/4")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def of_shards(self, count: int) -> range:
        """The numbers of its shards, of so many in all: consecutive, so that each machine reads its own stretch."""
        return range((self.number - 1) * count // self.of, self.number * count // self.of)


@contextmanager
def scratch(folder: Path, part: MachinePart) -> Iterator[Path]:
    """A place for the unfinished files of a part: hidden in the folder, of one process at a time, empty, then gone.

    Raises:
        UserError: another process of this machine works on the part.
    """
    corner = folder / f".part-{part.number}-of-{part.of}"
    try:
        with locked(corner.with_suffix(".lock"), seconds=PATIENCE):
            shutil.rmtree(corner, ignore_errors=True)
            # For its last moments a worker of a killed command may still write here, and so make the folder again.
            corner.mkdir(parents=True, exist_ok=True)
            try:
                yield corner
            finally:
                shutil.rmtree(corner, ignore_errors=True)
    except Busy:
        raise UserError(
            f"another process of this machine is preparing part {part} of {folder}; wait for it or stop it; to share "
            "the work among several machines, give each its own --part K/N"
        ) from None
