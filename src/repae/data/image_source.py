"""Where encoded images come from: one interface for folders, archives, tables and files in object storage."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np
from jaxtyping import Int64


class ImageSource(ABC):
    """Encoded images, each with a name and a class, reached by index in an order that depends on names only.

    A source holds no open file where it is pickled, and opens its own in each process. Nothing is decoded here.

    Attributes:
        where: what it was opened from, as it is said in errors.
        class_names: one name for each label.
        labels: the class of every image, by index.
        notes: what a person should be told, such as what was left out.
    """

    where: str
    class_names: tuple[str, ...]
    labels: Int64[np.ndarray, " n"]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def name(self, index: int) -> str:
        """The image's name inside the source, as in errors and lists; no two are equal."""

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The encoded image.

        Raises:
            OSError: it cannot be read; whether the file or the machine is at fault is decided by the error's number.
            BrokenImageError: what was read shows that this image is at fault.
        """

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of names, sizes in bytes and classes, in order; no image is read for it."""
        return str(self._digest())

    @abstractmethod
    def _digest(self) -> Digest: ...


class BrokenImageError(Exception):
    """An image that cannot be read; the message is the reason."""


class Digest:
    """A digest of names and numbers, in the order in which they come."""

    def __init__(self, *what: object) -> None:
        self._digest = hashlib.blake2b("\0".join(map(str, what)).encode(), digest_size=16)

    def add(self, name: str, *numbers: int) -> None:
        """One image: its name, and numbers such as its size in bytes and its label."""
        self._digest.update(os.fsencode(name) + b"".join(b"\0%d\0" % number for number in numbers))

    def __str__(self) -> str:
        return self._digest.hexdigest()
