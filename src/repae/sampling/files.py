"""The files of a long list of images: which are there, one more batch, and what they become when all are.

A batch is written under another name and renamed when it is safely on the disk, so that a process killed at any moment
leaves whole files only, and nothing but these files says what has been drawn.
"""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image
from typing_extensions import override

from repae.config import atomic_file
from repae.config.files import settle
from repae.runtime.background import Submit
from repae.runtime.image_files import write_array, write_pngs

PNG_END = b"IEND\xaeB`\x82"


def save_npz(
    path: Path, parts: Iterable[UInt8[np.ndarray, "b h w c"]], shape: tuple[int, ...], labels: Int64[np.ndarray, " n"]
) -> None:
    """`arr_0` of `shape` `[N, H, W, C]` from its parts in order, and `labels`; one part in memory at a time."""
    with atomic_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(
                member,  # type: ignore[arg-type]  # a stream is enough
                {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)},
            )
            written = 0
            for part in parts:
                member.write(np.ascontiguousarray(part).data)
                written += len(part)
        assert written == shape[0], f"{written} images for {shape}"
        with archive.open("labels.npy", "w") as member:
            np.lib.format.write_array(member, np.ascontiguousarray(labels), allow_pickle=False)


class Output(ABC):
    """Where `total` images of one request go, below `folder`."""

    def __init__(self, folder: Path, total: int) -> None:
        self.folder, self.total = folder, total

    @property
    @abstractmethod
    def path(self) -> Path:
        """The file or folder that the images are in when all of them are there."""

    @abstractmethod
    def present(self) -> list[range]:
        """The numbers of the images that are there, whole."""

    @abstractmethod
    def write(self, first: int, images: UInt8[np.ndarray, "b c h w"], submit: Submit) -> None:
        """Let a batch be written whose first image has the number `first`."""

    @abstractmethod
    def take(self, count: int) -> UInt8[np.ndarray, "n h w c"]:
        """The first `count` images, when all of them are there and before `finish`."""

    def finish(self, labels: Int64[np.ndarray, " n"]) -> None:
        """Make of all images what was asked for. Doing it twice, or again after a kill, does no harm."""
        with atomic_file(self.path / "labels.npy") as file:
            np.save(file, labels)
        settle(self.path)


class ShardOutput(Output):
    """A file `shards/FIRST-LAST.npy` `[b, H, W, C]` uint8 for each batch, last included, and `shards/labels.npy`."""

    _NAME = re.compile(r"(\d+)-(\d+)\.npy")

    @property
    @override
    def path(self) -> Path:
        return self._shards

    @override
    def present(self) -> list[range]:
        return [numbers for numbers, _ in self._files()]

    @override
    def write(self, first: int, images: UInt8[np.ndarray, "b c h w"], submit: Submit) -> None:
        submit(write_array, self._shards / f"{first:07d}-{first + len(images) - 1:07d}.npy", images)

    @override
    def take(self, count: int) -> UInt8[np.ndarray, "n h w c"]:
        found, left = [], count
        for part in self._parts():
            found.append(part[:left])
            left -= len(found[-1])
            if left == 0:
                break
        return np.concatenate(found)

    @property
    def _shards(self) -> Path:
        return self.folder / "shards"

    def _files(self) -> list[tuple[range, Path]]:
        found = []
        for path in self._shards.glob("*.npy"):
            if match := self._NAME.fullmatch(path.name):
                numbers = range(int(match[1]), int(match[2]) + 1)
                # The name says how many it holds; a file that does not is drawn again.
                if _length(path) == len(numbers):
                    found.append((numbers, path))
        return sorted(found, key=lambda item: item[0].start)

    def _parts(self) -> Iterator[UInt8[np.ndarray, "b h w c"]]:
        """The images in order, each once, although files of different batch sizes may overlap."""
        done = 0
        for numbers, path in self._files():
            if numbers.stop > done:
                yield np.load(path, mmap_mode="r")[done - numbers.start :]
                done = numbers.stop


class NpzOutput(ShardOutput):
    """One file `samples.npz`: `arr_0` `[N, H, W, C]` uint8 and `labels` `[N]` int64.

    The layout of guided diffusion's (ADM, arXiv 2105.05233) sample files. Shards until all images are there.
    """

    @property
    @override
    def path(self) -> Path:
        return self.folder / "samples.npz"

    @override
    def present(self) -> list[range]:
        return [range(self.total)] if self.path.exists() else super().present()

    @override
    def finish(self, labels: Int64[np.ndarray, " n"]) -> None:
        if not self.path.exists():
            (first,) = self.take(1)
            save_npz(self.path, self._parts(), (self.total, *first.shape), labels)
        # Only now: until the archive is whole, the shards are the way back.
        shutil.rmtree(self._shards, ignore_errors=True)
        settle(self.folder)


class PngOutput(Output):
    """A file `png/NUMBER.png` for each image, of six digits or more, and `png/labels.npy`."""

    @property
    @override
    def path(self) -> Path:
        return self.folder / "png"

    @override
    def present(self) -> list[range]:
        numbers = (int(path.stem) for path in self.path.glob("*.png") if path.stem.isdecimal() and _ends(path))
        return [range(number, number + 1) for number in sorted(numbers)]

    @override
    def write(self, first: int, images: UInt8[np.ndarray, "b c h w"], submit: Submit) -> None:
        submit(write_pngs, [self._name(first + place) for place in range(len(images))], images)

    @override
    def take(self, count: int) -> UInt8[np.ndarray, "n h w c"]:
        images = np.stack([np.asarray(Image.open(self._name(number))) for number in range(count)])
        return images[..., None] if images.ndim == 3 else images

    def _name(self, number: int) -> Path:
        return self.path / f"{number:06d}.png"


def _length(path: Path) -> int | None:
    try:
        return len(np.load(path, mmap_mode="r"))
    except (ValueError, EOFError):
        return None


def _ends(path: Path) -> bool:
    with path.open("rb") as file:
        # A PNG ends with IEND: a few bytes tell a whole file, without decoding it.
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - len(PNG_END)))
        return file.read() == PNG_END
