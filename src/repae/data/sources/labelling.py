"""Which files of a storage are images of which class: by folders, by a table, or all of one."""

from __future__ import annotations

from collections import Counter

import numpy as np

from repae.config import UserError
from repae.data.sources.class_folders import by_folders, folder_of_classes
from repae.data.sources.names import SUFFIXES, describe, hidden, suffix
from repae.data.sources.storage import LabelledFiles, Storage
from repae.data.sources.tables import by_table, find_table

ALL = "all"
"""The one class of images that are trained without classes."""


def by_table_or_folders(storage: Storage, *, table: str | None = None, inside: str | None = None) -> LabelledFiles:
    """The labelled images of an archive: by its table where it has one or one is given, else by its folders."""
    found = find_table(storage, table) if inside is None or table is not None else None
    if found is not None:
        return by_table(storage, found)
    if inside is not None:
        folder = inside.strip("/") + "/"
        if not any(name.startswith(folder) for name in storage.names):
            raise UserError(f"there is no folder '{inside}' in '{storage.where}'; correct --data.inside")
        return by_folders(storage, folder)
    folder = folder_of_classes(storage)
    labelled = by_folders(storage, folder)
    if not folder:
        return labelled
    note = f"all images of '{storage.where}' lie in '{folder}', so the classes are the folders in that"
    return labelled._replace(notes=(note, *labelled.notes))


def as_one_class(storage: Storage) -> LabelledFiles:
    """All images of a storage, sorted by name, as one class `all`."""
    files = [(name, position) for position, name in enumerate(storage.names) if not hidden(name)]
    images = sorted(file for file in files if suffix(file[0]) in SUFFIXES)
    if not images:
        what = describe(Counter(suffix(name) for name, _ in files)) if files else "nothing"
        raise UserError(
            f"data {storage.noun} '{storage.where}' holds no JPEG, PNG or WebP images, only {what}; correct the path"
        )
    positions = np.array([position for _, position in images], dtype=np.int64)
    return LabelledFiles(positions, (ALL,), np.zeros(len(images), dtype=np.int64), ())
