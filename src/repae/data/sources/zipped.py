"""Zip archives, read where they lie."""

from __future__ import annotations

import bz2
import struct
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64

from repae.config import UserError
from repae.config.files import readable
from repae.data.image_source import BrokenImageError
from repae.data.sources.names import Names
from repae.data.sources.ranges import RangeFile
from repae.data.sources.storage import Storage

MOST_BYTES = 2**30
"""A larger file inside an archive is not unpacked into memory."""
HEADER, SLACK = 30, 256
"""Bytes before the name of a file in the archive, and what is read on top for the fields after it."""
ENCRYPTED = 0x1
METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2})


class ZipStorage(Storage):
    """The files of a zip archive: its directory is read once, a file by one read of its bytes."""

    noun = "archive"

    def __init__(self, file: RangeFile) -> None:
        self.file = file
        self.where = file.where
        entries = sorted(self._entries().items())
        self.names = Names([name for name, _ in entries])
        self.starts = np.array([entry.header_offset for _, entry in entries], dtype=np.int64)
        self.packed = np.array([entry.compress_size for _, entry in entries], dtype=np.int64)
        self.unpacked = np.array([entry.file_size for _, entry in entries], dtype=np.int64)
        self.methods = np.array([entry.compress_type for _, entry in entries], dtype=np.int16)
        self.checksums = np.array([entry.CRC for _, entry in entries], dtype=np.uint32)

    def read(self, position: int) -> bytes:
        """The file, unpacked, its checksum compared."""
        size, packed = int(self.unpacked[position]), int(self.packed[position])
        if size > MOST_BYTES:
            raise BrokenImageError(f"it would unpack to {size:,} bytes; at most {MOST_BYTES:,} are read")
        start = int(self.starts[position])
        data = self.file.read(start, HEADER + len(self.names[position].encode("utf-8", "replace")) + SLACK + packed)
        if data[:4] != b"PK\x03\x04" or len(data) < HEADER:
            raise BrokenImageError("the archive is damaged where it should begin")
        begin = HEADER + sum(struct.unpack("<HH", data[26:30]))
        if begin + packed > len(data):
            data += self.file.read(start + len(data), begin + packed - len(data))
        content = _unpack(data[begin : begin + packed], int(self.methods[position]), size)
        if len(content) != size or zlib.crc32(content) != int(self.checksums[position]):
            raise BrokenImageError("the archive is damaged inside it: its checksum differs")
        return content

    def sizes(self, positions: Int64[np.ndarray, " n"]) -> Iterator[int]:
        yield from self.unpacked[positions].tolist()

    def _entries(self) -> dict[str, zipfile.ZipInfo]:
        """Files by name; of several with one name the last counts, as everywhere."""
        try:
            with self.file.stream() as stream, zipfile.ZipFile(stream) as archive:
                entries = {entry.filename: entry for entry in archive.infolist() if not entry.is_dir()}
        except (zipfile.BadZipFile, NotImplementedError, struct.error) as error:
            raise UserError(f"'{self.where}' is no zip archive, or cut off: {error}; fetch or make it again") from None
        for name, entry in entries.items():
            if entry.flag_bits & ENCRYPTED:
                raise UserError(f"'{readable(name)}' in '{self.where}' is encrypted; give an archive without password")
            if entry.compress_type not in METHODS:
                raise UserError(
                    f"'{readable(name)}' in '{self.where}' is compressed by zip's method {entry.compress_type}; "
                    "allowed: stored, deflate, bzip2; make the archive again with one of them (stored is fastest)"
                )
        return entries


def _unpack(data: bytes, method: int, size: int) -> bytes:
    """What was packed, and no more than one byte beyond the size that it should have."""
    if method == zipfile.ZIP_STORED:
        return data
    unpacker = bz2.BZ2Decompressor() if method == zipfile.ZIP_BZIP2 else zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return unpacker.decompress(data, size + 1)
    except (zlib.error, OSError, EOFError) as error:
        raise BrokenImageError(f"the archive is damaged inside it: {error}") from error
