"""Tar archives, read where they lie."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from repae.config import UserError
from repae.data.image_source import BrokenImageError
from repae.data.sources.names import Names
from repae.data.sources.ranges import RangeFile
from repae.data.sources.storage import Storage

COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
"""First bytes of what is compressed as a whole, so that no file inside can be reached but from the start."""

UNPACKERS = {"gzip": "gunzip", "bzip2": "bunzip2", "xz": "unxz", "zstd": "unzstd"}


class TarMember(NamedTuple):
    """Where a file's content lies in an archive."""

    start: int
    size: int


class TarStorage(Storage):
    """The files of a tar archive that is not compressed: listed once, each read by one read of its bytes."""

    noun = "archive"

    def __init__(self, file: RangeFile) -> None:
        self.file = file
        self.where = file.where
        with file.stream() as stream:
            entries = sorted(members(stream, file.where).items())
        self.names = Names([name for name, _ in entries])
        self.starts = np.array([place.start for _, place in entries], dtype=np.int64)
        self.lengths = np.array([place.size for _, place in entries], dtype=np.int64)

    def read(self, position: int) -> bytes:
        return read_whole(self.file, int(self.starts[position]), int(self.lengths[position]))

    def sizes(self, positions: Int64[np.ndarray, " n"]) -> Iterator[int]:
        yield from self.lengths[positions].tolist()


def members(stream: Any, where: str) -> dict[str, TarMember]:
    """The files of an archive, itself a binary file, by name and in its order.

    Links inside it are followed, folders and devices left out. Of several with one name the last counts, as everywhere.
    """
    found: dict[str, TarMember] = {}
    links: dict[str, str] = {}
    try:
        archive = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115 - the stream is the caller's
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined] - else it keeps all of them
            name = posixpath.normpath(member.name)
            if member.isreg() and not member.issparse():
                found[name] = TarMember(member.offset_data, member.size)
            elif member.islnk():
                links[name] = posixpath.normpath(member.linkname)
            elif member.issym():
                links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
        stream.seek(archive.offset)  # type: ignore[attr-defined]
        rest = stream.read(tarfile.BLOCKSIZE)
    except tarfile.TarError as error:
        raise UserError(_refusal(stream, where, str(error), len(found))) from None
    if rest.strip(b"\0"):
        raise UserError(_refusal(stream, where, f"what follows is no file ({rest[:8]!r})", len(found)))
    found |= {name: found[target] for name, target in links.items() if target in found}
    return found


def read_whole(file: RangeFile, start: int, size: int) -> bytes:
    """A part that must be whole. Raises as `ImageSource.read` does."""
    content = file.read(start, size)
    if len(content) != size:
        raise BrokenImageError(f"'{file.where}' ends inside it")
    return content


def compression(start: bytes) -> str | None:
    """How a file that begins so is compressed, or None."""
    return next((name for magic, name in COMPRESSED.items() if start.startswith(magic)), None)


def refuse_compressed(where: str, how: str) -> UserError:
    return UserError(
        f"'{where}' is compressed as a whole ({how}): to reach one image all before it would have to be unpacked; "
        f"unpack it, or take the compression off: {UNPACKERS[how]} -k '{where}'"
    )


def _refusal(stream: Any, where: str, reason: str, count: int) -> str:
    stream.seek(0)
    if how := compression(stream.read(8)):
        return str(refuse_compressed(where, how))
    return (
        f"'{where}' is no tar archive, damaged or cut off, after {count:,} files in it: {reason}; fetch or make it "
        "again"
    )
