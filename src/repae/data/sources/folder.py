"""Any folder of images in class subfolders, as it lies on the disk."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

from repae.data.images import ImagesConfig
from repae.data.source import Digest, Source, readable
from repae.data.sources.scan import scan


class FolderConfig(ImagesConfig):
    """A folder with one subfolder of JPEG, PNG or WebP images for each class; fields as in `ImagesConfig`."""

    kind: Literal["folder"] = "folder"

    def missing(self) -> str | None:
        """Words where there is no such folder."""
        if Path(self.path).expanduser().is_dir():
            return None
        return (
            f"there is no folder {self.path}; put the images there, in one subfolder for each class, "
            "or say where they are with --data.path FOLDER"
        )

    def source(self) -> FolderSource:
        """The folder, listed."""
        return FolderSource(self.path)


class FolderSource(Source):
    """The files of a folder's class subfolders.

    Classes are the sorted names of the subfolders, images are sorted by name inside them.
    """

    def __init__(self, path: str) -> None:
        self.root = Path(path).expanduser()
        self.where = readable(self.root)
        self.class_names, self.names, self.labels, self.notes = scan(path)

    def name(self, index: int) -> str:
        """The file's path below the folder."""
        return self.names[index]

    def read(self, index: int) -> bytes:
        """The file's content."""
        return (self.root / self.names[index]).read_bytes()

    @property
    def fingerprint(self) -> str:
        """Digest of every file's name and size."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = Digest("folder")
        for name in (self.names[index] for index in range(len(self))):
            try:
                size = (self.root / name).stat().st_size
            except OSError:
                size = -1
            digest.add(name, size)
        return str(digest)
