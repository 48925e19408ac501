"""The reference's packed images: encoded files as data sets of one HDF5 file, with `dataset.json` among them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from jaxtyping import Int64

from repae.config import UserError
from repae.config.files import readable
from repae.data.hdf5_file import Hdf5File
from repae.data.image_source import BrokenImageError
from repae.data.images import ImagesConfig
from repae.data.sources.labelling import as_one_class, by_table_or_folders
from repae.data.sources.names import Names
from repae.data.sources.storage import Storage, StoredSource
from repae.data.sources.tables import JSON

FILE, LIST = "images.h5", "images_h5.json"


class ReferenceHdf5Config(ImagesConfig):
    """The reference's `images.h5` with its `images_h5.json`, as its preprocessing writes them.

    Attributes:
        path: the folder of both files, or the HDF5 file.
    """

    kind: Literal["reference-hdf5"] = "reference-hdf5"

    def source(self) -> StoredSource:
        storage = Hdf5Storage(self.path)
        source = StoredSource(storage, as_one_class(storage) if self.labels == "none" else by_table_or_folders(storage))
        storage.file.close()  # the classes were read from it
        return source


class Hdf5Storage(Storage):
    """Encoded files in an HDF5 file, one data set of bytes for each."""

    noun = "file"

    def __init__(self, path: str) -> None:
        given = Path(path).expanduser()
        self.path = given / FILE if given.is_dir() else given
        self.where = readable(self.path)
        if not self.path.is_file():
            raise UserError(
                f"there is no file '{self.where}'; give the folder that holds {FILE} and {LIST}, or the file"
            )
        self.file = Hdf5File(self.path)
        self.names = Names(sorted(self._listed(self.file.opened())))
        self.file.close()

    def read(self, position: int) -> bytes:
        return _content(self.file.opened(), self.names[position])

    def sizes(self, positions: Int64[np.ndarray, " n"]) -> Iterator[int]:
        file = self.file.opened()
        for position in positions.tolist():
            found = _dataset(file, self.names[position])
            yield -1 if found is None else found.get_storage_size()

    def _listed(self, file: h5py.File) -> list[str]:
        """Names by the list beside the file, without which all of it has to be walked through; and `dataset.json`."""
        beside = self.path.with_name(f"{self.path.stem}_h5.json")
        if not beside.is_file():
            names: list[str] = []
            file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
            return names
        try:
            listed = json.loads(beside.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"'{readable(beside)}' cannot be read: {error}; remove it, it is not needed") from None
        names = list(listed) if isinstance(listed, (list, dict)) else []
        if not names or not all(isinstance(name, str) for name in names):
            raise UserError(f"'{readable(beside)}' is no list of names; remove it, it is not needed")
        return sorted({*names, *([JSON] if JSON in file else [])})


def _content(file: h5py.File, name: str) -> bytes:
    """The bytes of a data set: an array of them, or one opaque or text value."""
    found = _dataset(file, name)
    if found is None:
        raise BrokenImageError("it is listed but not in the file")
    try:
        if found.rank == 1 and found.dtype == np.uint8:
            array = np.empty(found.shape, dtype=np.uint8)
            found.read(h5py.h5s.ALL, h5py.h5s.ALL, array)
            return array.tobytes()
        value: Any = h5py.Dataset(found)[()]
    except (OSError, RuntimeError, AttributeError) as error:
        raise BrokenImageError(f"the file is damaged inside it: {error}") from error
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, bytes) else np.asarray(value).tobytes()


def _dataset(file: h5py.File, name: str) -> Any:
    """A data set by HDF5's own functions, in half the time of h5py's; None where there is none of that name."""
    try:
        return h5py.h5d.open(file.id, os.fsencode(name))
    except (KeyError, ValueError):
        return None
