"""Any folder of images in class subfolders, as it lies on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from repae.data.sources.base import SourceConfig
from repae.data.sources.class_folders import by_folders
from repae.data.sources.labelling import by_one
from repae.data.sources.storage import FolderStorage, StoredSource


class FolderConfig(SourceConfig):
    """A folder with one subfolder of JPEG, PNG or WebP images for each class; fields as in `ImagesConfig`."""

    kind: Literal["folder"] = "folder"

    def source(self) -> StoredSource:
        """The folder, listed."""
        storage = FolderStorage(self.path)
        return StoredSource(storage, by_one(storage) if self.labels == "none" else by_folders(storage))

    def missing(self) -> Iterator[str]:
        """No such folder."""
        if not Path(self.path).expanduser().is_dir():
            yield (
                f"data: there is no folder {self.path}; put the images there, in one subfolder for each class, "
                "or say where they are with --data.path FOLDER"
            )
