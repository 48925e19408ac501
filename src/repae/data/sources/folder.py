"""A folder of images: its classes are its subfolders, or stand in a table."""

from __future__ import annotations

from typing import Literal

from repae.config import UserError
from repae.data.images import ImagesConfig
from repae.data.sources.class_folders import by_folders
from repae.data.sources.labelling import as_one_class
from repae.data.sources.storage import FolderStorage, StoredSource
from repae.data.sources.tables import FORMS, by_table, find_table


class FolderConfig(ImagesConfig):
    """A folder with one subfolder of JPEG, PNG or WebP images for each class; fields as in `ImagesConfig`."""

    kind: Literal["folder"] = "folder"

    def source(self) -> StoredSource:
        storage = FolderStorage(self.path)
        return StoredSource(storage, as_one_class(storage) if self.labels == "none" else by_folders(storage))


class LabelledConfig(ImagesConfig):
    """A folder of images with their classes in `dataset.json` or a CSV file; which forms: `repae.data.sources.tables`.

    Attributes:
        table: name of the table in the folder, or path of one elsewhere; by default dataset.json, labels.csv,
            metadata.csv or the only CSV file there. Names in it count from the folder.
    """

    kind: Literal["labelled"] = "labelled"
    table: str | None = None

    def source(self) -> StoredSource:
        storage = FolderStorage(self.path)
        if self.labels == "none":
            return StoredSource(storage, as_one_class(storage))
        table = find_table(storage, self.table)
        if table is None:
            raise UserError(
                f"data folder '{storage.where}' has no table of classes; put a dataset.json or labels.csv there, or "
                f"give --data.table FILE, or train without classes: --data.labels none; {FORMS}"
            )
        return StoredSource(storage, by_table(storage, table))
