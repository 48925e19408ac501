"""A zip or tar archive of images, read without unpacking it."""

from __future__ import annotations

from typing import Literal

from repae.data.images import ImagesConfig
from repae.data.sources.labelling import as_one_class, by_table_or_folders
from repae.data.sources.ranges import RangeFile
from repae.data.sources.storage import StoredSource
from repae.data.sources.tarred import TarStorage, compression, refuse_compressed
from repae.data.sources.zipped import ZipStorage

ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
TAR_MAGIC, TAR_PLACE = b"ustar", 257


class ArchiveConfig(ImagesConfig):
    """A zip archive, or a tar archive that is not compressed, local or at a URL, in which images lie as in a folder.

    Attributes:
        table: name of a table inside, or path of one elsewhere; by default one that is called as tables are. Without
            one the folders are the classes.
        inside: the folder inside that holds the class folders; by default the top, or the one folder that is there.
    """

    kind: Literal["archive"] = "archive"
    table: str | None = None
    inside: str | None = None

    def source(self) -> StoredSource:
        file = RangeFile(self.path)
        kind = archive_kind(file.read(0, 512))
        if kind not in ("zip", "tar", None):
            raise refuse_compressed(file.where, kind)
        # What looks like neither is opened as a tar, which says what is wrong.
        storage = ZipStorage(file) if kind == "zip" else TarStorage(file)
        if self.labels == "none":
            return StoredSource(storage, as_one_class(storage))
        return StoredSource(storage, by_table_or_folders(storage, table=self.table, inside=self.inside))


def archive_kind(start: bytes) -> str | None:
    """zip, tar, or how it is compressed, by the first 512 bytes; None if it looks like none."""
    if start.startswith(ZIP_STARTS):
        return "zip"
    if start[TAR_PLACE : TAR_PLACE + len(TAR_MAGIC)] == TAR_MAGIC:
        return "tar"
    return compression(start)
