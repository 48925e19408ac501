"""Where the files of a data set stand: a folder of this machine, or object storage with a cache of whole files here."""

from __future__ import annotations

import hashlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

from repae.config import UserError, locked
from repae.config.files import TEMPORARY, Unfinished, cache_folder
from repae.runtime.remote import NO_ROOM, UnreachableError, ask, is_url

T = TypeVar("T")


class FileStore(ABC):
    """Files below one place, each named by its path there.

    Attributes:
        where: the place, as it is said in errors.
    """

    where: str

    def name(self, name: str) -> str:
        return f"{self.where.rstrip('/')}/{name}"

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content of a small file, always from where it comes from.

        Raises:
            OSError: FileNotFoundError where there is none.
        """

    @abstractmethod
    def has(self, name: str) -> bool: ...

    @abstractmethod
    def open(self, name: str, size: int, digest: str) -> FileIO:
        """The file of that many bytes and that SHA-256, opened on this machine. Neither is compared here.

        Raises:
            OSError: there is none.
            UserError: it cannot be fetched.
        """


class LocalStore(FileStore):
    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        self.where = str(folder)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def open(self, name: str, size: int, digest: str) -> FileIO:
        return FileIO(self.folder / name)


class RemoteStore(FileStore):
    """A folder that fsspec reaches by URL: s3, gs, http, ... A file is fetched whole when it is first asked for.

    Fetched files are kept for later runs and shared by all processes of the machine, up to `most_bytes` in all; those
    not asked for the longest go first. A file is there whole or not at all.

    Args:
        url: the folder.
        cache: a folder of this machine; fetched files go into a subfolder of their own for each URL. None takes the
            user's cache.
        most_bytes: what may be kept of this URL.
    """

    # fsspec's own caches of whole files (filecache, simplecache) do not serve here: they write under the final name, so
    # that another process opens half a file, they do not look at sizes, and they grow without bound.

    def __init__(self, url: str, cache: str | None, most_bytes: int) -> None:
        self.where = url.rstrip("/")
        self.folder = cache_folder("shards", cache) / hashlib.sha256(self.where.encode()).hexdigest()[:16]
        self.most_bytes = most_bytes

    def read(self, name: str) -> bytes:
        return self._ask(name, lambda files, path: files.cat_file(path))

    def has(self, name: str) -> bool:
        return self._ask(name, lambda files, path: files.exists(path))

    def open(self, name: str, size: int, digest: str) -> FileIO:
        """The fetched file; fetches it first where that is needed. Once open it stays readable, whatever happens."""
        # By its content: a folder that was made anew at the same URL must not be read from what was kept of the former.
        target = self.folder / f"{digest[:16]}.{name.rpartition('/')[2]}"
        if (file := _opened(target, size)) is not None:
            return file
        if size > self.most_bytes:
            raise UserError(
                f"{self.name(name)} has {size:,} bytes, the cache may hold {self.most_bytes:,}; "
                "allow more with --data.cache-bytes"
            )
        with locked(target.with_suffix(".lock")):
            while (file := _opened(target, size)) is None:  # others may have fetched it, or need the room already
                self._make_room(size)
                if (found := self._fetch(name, target)) != size:
                    raise OSError(f"{found:,} bytes were fetched instead of {size:,}")
        return file

    def _fetch(self, name: str, target: Path) -> int:
        unfinished = Unfinished(target)
        try:
            self._ask(name, lambda files, path: files.get_file(path, str(unfinished.path)))
            size = unfinished.path.stat().st_size
            unfinished.finish()
            return size
        except OSError as error:
            if error.errno in NO_ROOM:
                raise UserError(
                    f"no room in {self.folder} for {self.name(name)}; free some, allow less with --data.cache-bytes "
                    f"(now {self.most_bytes:,}), or choose another folder with --data.cache"
                ) from error
            raise
        finally:
            unfinished.discard()

    def _make_room(self, size: int) -> None:
        """Removes the files asked for longest ago, and what killed processes left, until `size` bytes fit in."""
        with locked(self.folder / "cache.lock"):
            kept: list[tuple[bool, float, int, Path]] = []
            for path in self.folder.rglob("*"):
                with suppress(OSError):
                    status = path.stat()
                    unfinished = path.name.startswith(TEMPORARY)
                    # What another process fetches now is unfinished too, but it is younger than an hour.
                    if time.time() - status.st_mtime > 3600 if unfinished else path.suffix == ".npy":
                        kept.append((not unfinished, status.st_mtime, status.st_size, path))
            total = sum(entry[2] for entry in kept)
            for whole, _, volume, path in sorted(kept):
                if whole and total + size <= self.most_bytes:
                    break
                path.unlink(missing_ok=True)
                total -= volume

    def _ask(self, name: str, question: Callable[[Any, str], T]) -> T:
        try:
            return ask(self.name(name), question)
        except UnreachableError as error:
            raise UserError(error.strerror) from error


def store_at(path: str, cache: str | None, most_bytes: int) -> FileStore:
    return RemoteStore(path, cache, most_bytes) if is_url(path) else LocalStore(path)


def _opened(path: Path, size: int) -> FileIO | None:
    """A fetched file that is whole, its age started anew; else None."""
    try:
        file = FileIO(path)
        if os.fstat(file.fileno()).st_size == size:
            os.utime(path)
            return file
        file.close()
    except OSError:
        pass
    return None
