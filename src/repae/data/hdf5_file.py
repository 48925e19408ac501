"""One HDF5 file, opened by each process that reads it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py

from repae.config import UserError
from repae.config.files import readable


class Hdf5File:
    """A handle is not shared with a forked worker, and not pickled. h5py itself lets one thread read at a time."""

    def __init__(self, path: Path) -> None:
        self.path, self.where = path, readable(path)
        self._file: h5py.File | None = None
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def opened(self) -> h5py.File:
        if self._file is None or self._process != os.getpid():
            try:
                self._file, self._process = h5py.File(self.path, "r", locking=False), os.getpid()
            except OSError as error:
                reason = str(error).partition("\n")[0]
                raise UserError(f"'{self.where}' is no readable HDF5 file: {reason}; fetch or make it again") from None
        return self._file

    def close(self) -> None:
        """Closes what this process has open; the next look opens it again."""
        if self._file is not None and self._process == os.getpid():
            self._file.close()
        self._file = None
