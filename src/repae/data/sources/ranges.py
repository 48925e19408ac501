"""Parts of one large file, local or in object storage, read by any process."""

from __future__ import annotations

import errno
import os
from io import FileIO
from pathlib import Path
from typing import Any

from repae.config import UserError
from repae.config.files import readable
from repae.runtime.remote import UnreachableError, ask, is_url, reason

BLOCK = 8 * 2**20
"""Bytes that are fetched at once where a remote file is read from end to end."""


class RangeFile:
    """One file of which parts are read. Nothing open is pickled; each process opens what it needs.

    Parts of a remote file are not kept: an image is about as long as a block of fsspec's caches, and is seen once an
    epoch.

    Args:
        path: a local path, or a URL that fsspec understands (`https://`, `s3://`, `gs://`, ...).

    Attributes:
        size: in bytes.
        version: changes when the content does, as far as the storage says: its tag or the time of its last change.
    """

    def __init__(self, path: str) -> None:
        self.path = path if is_url(path) else str(Path(path).expanduser())
        self.where = readable(self.path)
        self._file: FileIO | None = None
        self.size, self.version = self._remote_facts() if is_url(path) else self._local_facts()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def close(self) -> None:
        """Closes what this process has open; the next part opens it again."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def read(self, start: int, length: int) -> bytes:
        """A part; shorter where the file ends.

        Raises:
            OSError: EIO where the file, and not what lies in it, is at fault.
        """
        length = max(0, min(length, self.size - start))
        if length == 0:
            return b""
        try:
            if is_url(self.path):
                return ask(self.path, lambda files, name: files.cat_file(name, start=start, end=start + length))
            return self._read_local(start, length)
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            raise OSError(errno.EIO, f"'{self.where}': {reason(error)}") from error

    def stream(self) -> Any:
        """The whole file as a binary file of whatever class, to be read in order; close it."""
        if not is_url(self.path):
            return Path(self.path).open("rb")
        return ask(self.path, lambda files, name: files.open(name, "rb", block_size=BLOCK, cache_type="readahead"))

    def _local_facts(self) -> tuple[int, str]:
        try:
            found = Path(self.path).stat()
        except OSError as error:
            raise UserError(f"'{self.where}' cannot be opened: {error.strerror}; correct the path") from None
        return found.st_size, str(found.st_mtime_ns)

    def _remote_facts(self) -> tuple[int, str]:
        try:
            info = ask(self.path, lambda files, name: files.info(name))
        except FileNotFoundError:
            raise UserError(f"'{self.where}' is not there; correct the URL") from None
        except UnreachableError as error:
            raise UserError(error.strerror) from None
        if info.get("size") is None or info.get("partial") is False:
            raise UserError(
                f"'{self.where}' can only be read from its start: the server tells no size or gives no ranges; "
                "download it and give the local path"
            )
        tags = (info.get(key) for key in ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated"))
        return int(info["size"]), next((str(tag) for tag in tags if tag), "")

    def _read_local(self, start: int, length: int) -> bytes:
        if not hasattr(os, "pread"):
            with Path(self.path).open("rb") as file:
                file.seek(start)
                return file.read(length)
        if self._file is None:
            self._file = FileIO(self.path)
        # Several processes may share the open file: the position is an argument and not its state.
        return os.pread(self._file.fileno(), length, start)
