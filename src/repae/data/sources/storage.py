"""Where files lie, apart from what they are: a folder, an archive, a container. Labels are another matter."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from repae.config import UserError
from repae.config.files import readable
from repae.data.image_source import Digest, ImageSource
from repae.data.sources.names import Names


class Storage(ABC):
    """Files in one place, listed once and read by position.

    It holds no open file where it is pickled, and opens its own in each process.

    Attributes:
        where: what it is, as it is said in errors.
        noun: what it is called, such as "folder".
        names: of all files that are not hidden, with `/` between folders; no two are equal.
        empty: folders directly inside that hold no file.
    """

    where: str
    noun: str
    names: Names
    empty: Sequence[str] = ()

    @abstractmethod
    def read(self, position: int) -> bytes:
        """The content of a file. Raises as `ImageSource.read` does."""

    @abstractmethod
    def sizes(self, positions: Int64[np.ndarray, " n"]) -> Iterator[int]:
        """Sizes in bytes of some files, -1 where one cannot be told; nothing is read for them."""


class LabelledFiles(NamedTuple):
    """Some files of a storage, in order, each with its class, and what a person should be told."""

    positions: Int64[np.ndarray, " n"]
    class_names: tuple[str, ...]
    labels: Int64[np.ndarray, " n"]
    notes: tuple[str, ...]


class StoredSource(ImageSource):
    def __init__(self, storage: Storage, labelled: LabelledFiles) -> None:
        self.storage = storage
        self.where = storage.where
        self.positions, self.class_names, self.labels, self.notes = labelled

    def name(self, index: int) -> str:
        return self.storage.names[int(self.positions[index])]

    def read(self, index: int) -> bytes:
        return self.storage.read(int(self.positions[index]))

    def _digest(self) -> Digest:
        # Of nothing that depends on the storage: packed into an archive the images keep their caches.
        digest = Digest("files", *self.class_names)
        sizes = self.storage.sizes(self.positions)
        for index, (size, label) in enumerate(zip(sizes, self.labels.tolist())):
            digest.add(self.name(index), size, label)
        return digest


class FolderStorage(Storage):
    """The files below a folder, as they lie on the disk."""

    noun = "folder"

    def __init__(self, path: str) -> None:
        self.root = Path(path).expanduser()
        self.where = readable(self.root)
        check_folder(self.root)
        files, folders = list_folder(self.root)
        names, empty = list(files), []
        for folder in folders:
            found = list(_walk(self.root / folder, folder))
            names += found
            if not found:
                empty.append(folder)
        self.names = Names(sorted(names))
        self.empty = tuple(empty)

    def read(self, position: int) -> bytes:
        return (self.root / self.names[position]).read_bytes()

    def sizes(self, positions: Int64[np.ndarray, " n"]) -> Iterator[int]:
        for position in positions.tolist():
            try:
                yield os.stat(f"{self.root}/{self.names[position]}").st_size  # noqa: PTH116 - a third of Path's time
            except OSError:
                yield -1


def check_folder(folder: Path) -> None:
    shown = readable(folder)
    try:
        if folder.is_dir():
            return
        exists = folder.exists()
    except OSError as error:
        raise UserError(f"data folder '{shown}' cannot be reached: {error.strerror}; correct the path") from error
    if exists:
        raise UserError(
            f"data path '{shown}' is a file and no folder; if it is an archive, a table or a shard, --data '{shown}' "
            "finds out which"
        )
    parent = next((readable(p) for p in folder.absolute().parents if p.is_dir()), os.sep)
    raise UserError(
        f"data folder '{shown}' does not exist (of its path, '{parent}' does); correct the path or put the images there"
    )


def list_folder(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the files and of the folders in a folder, hidden ones left out, sorted."""
    try:
        with os.scandir(folder) as entries:
            seen = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(
            f"folder '{readable(folder)}' cannot be listed: {error.strerror}; make it readable or take it away"
        ) from error
    return sorted(name for name, is_dir in seen if not is_dir), sorted(name for name, is_dir in seen if is_dir)


def _walk(folder: Path, relative: str) -> Iterator[str]:
    """Every file below a folder, as a path relative to the data's root; links to a folder above are not followed."""
    files, subfolders = list_folder(folder)
    yield from (f"{relative}/{name}" for name in files)
    for name in subfolders:
        below = folder / name
        if not (below.is_symlink() and folder.resolve().is_relative_to(below.resolve())):
            yield from _walk(below, f"{relative}/{name}")
