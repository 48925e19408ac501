"""Parts of one large file, local or in object storage, read by any process."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from typing import Any

from repae.config import UserError
from repae.data.image_source import readable

ATTEMPTS = 4
"""So often a part is asked for before the network counts as broken: after 0.25, 1 and 4 seconds once more."""
BLOCK = 8 * 2**20
"""Bytes that are fetched at once where a remote file is read from end to end."""


class RangeFile:
    """One file of which parts are read. Nothing open is pickled; each process and thread opens what it needs.

    Args:
        path: a local path, or a URL that fsspec understands (`https://`, `s3://`, `gs://`, ...).

    Raises:
        UserError: it is not there, cannot be reached, or can only be read from its start.
    """

    def __init__(self, path: str) -> None:
        self.path = path if is_url(path) else str(Path(path).expanduser())
        self.where = readable(self.path)
        self.version = ""
        """Changes when the content does, as far as the storage says: its tag or the time of its last change."""
        self._descriptor: int | None = None
        if is_url(path):
            self.size = self._ask_remote()
        else:
            self.size = self._ask_local()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptor": None}

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Closes what this process has open; the next part opens it again."""
        descriptor, self._descriptor = getattr(self, "_descriptor", None), None
        if descriptor is not None:
            os.close(descriptor)

    def read(self, start: int, length: int) -> bytes:
        """A part; shorter where the file ends.

        Raises:
            OSError: EIO where the file, and not what lies in it, is at fault.
        """
        length = max(0, min(length, self.size - start))
        if length == 0:
            return b""
        return self._read_remote(start, length) if is_url(self.path) else self._read_local(start, length)

    def stream(self) -> Any:
        """The whole file as a binary file of whatever class, to be read in order; close it."""
        if not is_url(self.path):
            return Path(self.path).open("rb")
        files, name = _remote(self.path)
        return files.open(name, "rb", block_size=BLOCK, cache_type="readahead")

    def _ask_local(self) -> int:
        try:
            found = Path(self.path).stat()
        except OSError as error:
            raise UserError(f"'{self.where}' cannot be opened: {error.strerror}; correct the path") from None
        self.version = str(found.st_mtime_ns)
        return found.st_size

    def _ask_remote(self) -> int:
        try:
            files, name = _remote(self.path)
            info = files.info(name)
        except FileNotFoundError:
            raise UserError(f"'{self.where}' is not there; correct the URL") from None
        except ImportError as error:
            raise UserError(f"'{self.where}' needs more than is installed: {error}") from None
        except Exception as error:  # every storage raises its own kind
            raise UserError(
                f"'{self.where}' cannot be reached: {_reason(error)}; check the URL, the connection and the permission"
            ) from None
        tags = (info.get(key) for key in ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated"))
        self.version = next((str(tag) for tag in tags if tag), "")
        if info.get("size") is None or info.get("partial") is False:
            raise UserError(
                f"'{self.where}' can only be read from its start: the server tells no size or gives no ranges; "
                "download it and give the local path"
            )
        return int(info["size"])

    def _read_local(self, start: int, length: int) -> bytes:
        try:
            if not hasattr(os, "pread"):
                with Path(self.path).open("rb") as file:
                    file.seek(start)
                    return file.read(length)
            if self._descriptor is None:
                self._descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            # Several processes may share the descriptor: the position is an argument and not its state.
            return os.pread(self._descriptor, length, start)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EACCES, errno.EISDIR):
                raise OSError(errno.EIO, f"'{self.where}': {error.strerror}") from error
            raise

    def _read_remote(self, start: int, length: int) -> bytes:
        for attempt in range(ATTEMPTS):
            try:
                files, name = _remote(self.path)
                return files.cat_file(name, start=start, end=start + length)
            except Exception as error:  # every storage raises its own kind
                if attempt == ATTEMPTS - 1 or isinstance(error, (FileNotFoundError, PermissionError)):
                    raise OSError(errno.EIO, f"'{self.where}': {_reason(error)}") from error
                time.sleep(4.0 ** (attempt - 1))
        raise AssertionError


def is_url(path: str) -> bool:
    """Whether a path names a place that only fsspec can read."""
    return "://" in path


def expand_remote(pattern: str) -> list[str]:
    """The URLs that a pattern with `*` matches, sorted.

    Raises:
        UserError: the storage cannot be listed.
    """
    try:
        files, name = _remote(pattern)
        return sorted(files.unstrip_protocol(found) for found in files.glob(name))
    except Exception as error:  # every storage raises its own kind
        raise UserError(
            f"'{readable(pattern)}' cannot be listed: {_reason(error)}; write the names out, as in {{000..123}}.tar"
        ) from None


_connections: dict[tuple[int, int, str], Any] = {}


def _remote(url: str) -> tuple[Any, str]:
    """The file system of a URL, one for each process and thread, and the name in it."""
    import fsspec

    scheme = url.partition("://")[0]
    key = (os.getpid(), threading.get_ident(), scheme)
    if key not in _connections:
        _connections[key] = fsspec.core.url_to_fs(url)[0]
    files = _connections[key]
    return files, files._strip_protocol(url)


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.partition("\n")[0]
