"""File names: many in little memory, what they say of a file, and how they are told to people."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Int64

from repae.config.files import readable

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"})
OTHER_IMAGES = frozenset({".avif", ".bmp", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".ppm", ".tga", ".tif", ".tiff"})


class Names:
    """Many file names in one block of memory: half of what a list takes, and shared by worker processes, which would
    copy a list page by page as they touch its reference counts."""

    def __init__(self, names: Sequence[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self.block = b"".join(encoded)
        self.ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    @classmethod
    def of(cls, block: bytes, ends: Int64[np.ndarray, " m"]) -> Names:
        """Names from their block and where each ends in it, a 0 before the first."""
        names = cls([])
        names.block, names.ends = block, ends
        return names

    @classmethod
    def joined(cls, parts: Sequence[Names]) -> Names:
        starts = np.cumsum([0, *(len(part.block) for part in parts)])
        ends = [part.ends[1:] + start for part, start in zip(parts, starts)]
        return cls.of(b"".join(part.block for part in parts), np.concatenate([[0], *ends]))

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(f"{index} is outside 0..{len(self) - 1}")
        return os.fsdecode(self.block[self.ends[index] : self.ends[index + 1]])

    def __iter__(self) -> Iterator[str]:
        ends = self.ends.tolist()
        return (os.fsdecode(self.block[start:end]) for start, end in pairwise(ends))


def suffix(name: str) -> str:
    """The last dot and what follows it, in lower case; empty for a name without, or with nothing before it."""
    stem, dot, last = name.rpartition("/")[2].rpartition(".")
    return (dot + last).lower() if stem else ""


def hidden(name: str) -> bool:
    """Whether a file is one that systems put beside those of people."""
    return name.startswith((".", "__MACOSX/")) or "/." in name


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def describe(kinds: Counter[str]) -> str:
    """Files by suffix, most frequent first."""
    parts = [f"{many:,} {kind or 'without suffix'}" for kind, many in kinds.most_common(5)]
    return f"{count(kinds.total(), 'file')} ({', '.join(parts)}{', ...' if len(kinds) > 5 else ''})"


def join(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(f"'{readable(name)}'" for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
