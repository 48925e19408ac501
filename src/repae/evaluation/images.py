"""Sets of images to be measured: in memory, from a data set, from an ADM `.npz`, or from a folder.

Nothing is ever resized without being asked: a set has one size, and a set that has not is refused.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Int64, Shaped, UInt8
from PIL import Image
from torch import Tensor

from repae.config import UserError
from repae.config.files import readable
from repae.data import Dataset
from repae.data.decode import FORMATS, decode
from repae.data.image_source import BrokenImageError
from repae.data.sources.names import SUFFIXES

HASHED = 512
"""Images read at once while a set is hashed."""


class ImageSet(ABC):
    """Images of one size in a fixed order, read from front to back as often as needed.

    Attributes:
        shape: channels, height, width of every image.
        labels: the class of each image, or None where nobody said.
        keep: whether their features are worth keeping.
    """

    name: str
    shape: tuple[int, int, int]
    labels: Int64[Tensor, " n"] | None
    count: int
    keep: bool = True

    def __len__(self) -> int:
        return self.count

    @abstractmethod
    def batches(self, batch_size: int) -> Iterator[UInt8[Tensor, "b c h w"]]:
        """All images in order, 0..255, on the CPU."""

    @cached_property
    def digest(self) -> str:
        """24 hexadecimal digits of the number, size and pixels of the images: two sets with the same are the same."""
        digest = hashlib.sha256(json.dumps([len(self), *self.shape]).encode())
        for images in self.batches(HASHED):
            digest.update(images.contiguous().numpy().data)
        return digest.hexdigest()[:24]

    def facts(self) -> dict[str, Any]:
        return {"name": self.name, "images": len(self), "size": list(self.shape), "sha256": self.digest}


class ImagesInMemory(ImageSet):
    """Images that are there already, such as generated ones."""

    def __init__(
        self,
        name: str,
        images: Shaped[Tensor, "n c h w"],
        labels: Int[Tensor, " n"] | None = None,
        *,
        keep: bool = True,
    ) -> None:
        check_levels(images.dtype, name)
        if not len(images):
            raise UserError(f"{name} holds no image; give at least one")
        self.name, self.images = name, images.cpu()
        self.count, self.shape = len(images), (images.shape[1], images.shape[2], images.shape[3])
        self.labels = None if labels is None else labels.cpu().long()
        self.keep = keep

    def batches(self, batch_size: int) -> Iterator[UInt8[Tensor, "b c h w"]]:
        yield from self.images.split(batch_size)


class ImagesOfDataset(ImageSet):
    """Some images of a data set, never mirrored; its digest is that of the data's fingerprint and the indices."""

    def __init__(self, name: str, dataset: Dataset, indices: Int64[Tensor, " n"]) -> None:
        self.name, self.dataset, self.indices = name, dataset, indices
        self.count, self.shape = len(indices), (dataset.channels, dataset.resolution, dataset.resolution)
        self.labels = dataset.labels[indices]

    def batches(self, batch_size: int) -> Iterator[UInt8[Tensor, "b c h w"]]:
        for part in self.indices.split(batch_size):
            yield self.dataset.batch(part).images

    @cached_property
    def digest(self) -> str:
        """24 hexadecimal digits of the data's fingerprint and the indices; the pixels are not read."""
        digest = hashlib.sha256(self.dataset.fingerprint.encode())
        digest.update(self.indices.contiguous().numpy().data)
        return digest.hexdigest()[:24]


class ImagesInNpz(ImageSet):
    """`arr_0` `[N, H, W, 3]` uint8 of an `.npz` file, the layout of ADM (arXiv 2105.05233), read without unpacking it.

    `labels` are its array `labels` (or `arr_1`, where ADM's sampler puts them), where it has one.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = readable(self.path.name)
        shape, dtype = npy_header(self.path, "arr_0")
        if len(shape) == 3 or (len(shape) == 4 and shape[-1] == 1):
            raise UserError(
                f"arr_0 of {self.name} is {list(shape)}: grey images; features are of RGB images [N, H, W, 3]; "
                "repeat the channel three times if that is meant"
            )
        if len(shape) != 4 or shape[-1] != 3:
            raise UserError(f"arr_0 of {self.name} is {list(shape)}; allowed: images [N, H, W, 3]")
        check_levels(dtype, f"arr_0 of {self.name}")
        if not shape[0]:
            raise UserError(f"arr_0 of {self.name} holds no image; give at least one")
        self.count, self.shape = shape[0], (3, shape[1], shape[2])
        self.labels = self._labels()

    def batches(self, batch_size: int) -> Iterator[UInt8[Tensor, "b c h w"]]:
        """Streamed out of the archive, which may be larger than the memory."""
        _, height, width = self.shape
        size = height * width * 3
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open("arr_0.npy") as file:
                _read_header(file)
                for first in range(0, len(self), batch_size):
                    rows = min(batch_size, len(self) - first)
                    data = file.read(rows * size)
                    if len(data) < rows * size:
                        raise UserError(
                            f"{self.name} is cut short: arr_0 ends inside image {first + len(data) // size}; "
                            "copy the file again"
                        )
                    # bytearray, since torch warns of memory that may not be written to.
                    pixels = np.frombuffer(bytearray(data), np.uint8).reshape(rows, height, width, 3)
                    yield torch.from_numpy(pixels).permute(0, 3, 1, 2)
        except (OSError, zipfile.BadZipFile, EOFError) as error:
            raise UserError(f"{self.name} cannot be read: {error}; copy the file again") from None

    def _labels(self) -> Int64[Tensor, " n"] | None:
        names = npz_names(self.path)
        for name in ("labels", "arr_1"):
            if name in names:
                with np.load(self.path, allow_pickle=False) as file:
                    labels = file[name]
                if labels.shape == (self.count,) and np.issubdtype(labels.dtype, np.integer):
                    return torch.from_numpy(labels.astype(np.int64))
        return None


class ImagesInFolder(ImageSet):
    """JPEG, PNG and WebP images anywhere below a folder, by name; of one size, or cropped to `resolution` as ADM does.

    Where every image lies in a subfolder, the subfolder's place in the sorted list is its label.
    """

    def __init__(self, path: str | Path, resolution: int | None = None) -> None:
        root = Path(path).expanduser()
        self.name, self.resolution = readable(root.name or str(root)), resolution
        inside = (file.relative_to(root) for file in root.rglob("*") if file.suffix.lower() in SUFFIXES)
        names = sorted(name.as_posix() for name in inside if not any(part.startswith(".") for part in name.parts))
        if not names:
            raise UserError(f"the folder '{readable(root)}' holds no JPEG, PNG or WebP image; correct the path")
        self.files = [root / name for name in names]
        self.count = len(names)
        height, width = (resolution, resolution) if resolution else self._read(0).shape[1:]
        self.shape = (3, height, width)
        classes = [name.partition("/")[0] for name in names if "/" in name]
        known = {name: place for place, name in enumerate(sorted(set(classes)))}
        whole = len(classes) == len(names) and len(known) > 1
        self.labels = torch.tensor([known[name] for name in classes]) if whole else None

    def batches(self, batch_size: int) -> Iterator[UInt8[Tensor, "b c h w"]]:
        for first in range(0, len(self), batch_size):
            yield torch.stack([self._of_one_size(i) for i in range(first, min(first + batch_size, len(self)))])

    def _of_one_size(self, index: int) -> UInt8[Tensor, "3 h w"]:
        image = self._read(index)
        if tuple(image.shape) != self.shape:
            raise UserError(
                f"'{readable(self.files[index])}' measures {image.shape[2]} x {image.shape[1]} px and "
                f"'{readable(self.files[0].name)}' {self.shape[2]} x {self.shape[1]} px (width x height); figures "
                "depend on how images are resized, so say it: --resolution 256 cuts every image's centre as ADM does"
            )
        return image

    def _read(self, index: int) -> UInt8[Tensor, "3 h w"]:
        path = self.files[index]
        try:
            if self.resolution:
                return decode(path.read_bytes(), self.resolution)
            with Image.open(path, formats=FORMATS) as image:
                if image.mode != "RGB":
                    raise UserError(
                        f"'{readable(path)}' is no 8-bit RGB image (mode {image.mode}); features are of RGB images; "
                        "convert it, or give --resolution, which reads every image as training does"
                    )
                return torch.from_numpy(np.array(image)).permute(2, 0, 1)
        except (OSError, BrokenImageError) as error:
            raise UserError(f"'{readable(path)}' cannot be read as an image: {error}; repair or remove it") from None


def open_images(path: str | Path, resolution: int | None = None) -> ImageSet:
    path = Path(path).expanduser()
    if path.is_dir():
        return ImagesInFolder(path, resolution)
    if not path.exists():
        raise UserError(f"there is no '{readable(path)}'; give a folder of images or an .npz file with arr_0")
    if path.suffix != ".npz":
        raise UserError(f"'{readable(path)}' is neither a folder nor an .npz file; give images as one of them")
    images = ImagesInNpz(path)
    if resolution and images.shape[1:] != (resolution, resolution):
        raise UserError(f"{images.name} holds images of {size_words(images)}; leave --resolution out, it crops folders")
    return images


def check_same_size(images: ImageSet, reference: ImageSet) -> None:
    if images.shape != reference.shape:
        raise UserError(
            f"{images.name} holds images of {size_words(images)}, the reference {reference.name} of "
            f"{size_words(reference)}; compare images of one size"
        )


def size_words(images: ImageSet) -> str:
    channels, height, width = images.shape
    return f"{width} x {height} px in {channels} channel{'s' if channels > 1 else ''}"


def check_levels(dtype: Any, name: str) -> None:
    if dtype in (torch.uint8, np.dtype(np.uint8)):
        return
    kind = str(dtype).removeprefix("torch.")
    hint = "; numbers in [0, 1] become levels by (255 * x).round()" if "float" in kind else ""
    raise UserError(f"{name} holds {kind}; allowed: uint8, levels 0..255{hint}")


def npz_names(path: Path) -> set[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{readable(path)} cannot be read as an .npz file: {error}; copy it again") from None


def npy_header(path: Path, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of one array of an `.npz` file, which is not read."""
    names = npz_names(path)
    if name not in names:
        raise UserError(
            f"{readable(path)} has no {name}; it holds {', '.join(sorted(names)) or 'nothing'}; save it under that name"
        )
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            return _read_header(file)
    except ValueError as error:
        raise UserError(f"{name} of {readable(path)} cannot be read: {error}; save it again, C-ordered") from None


def _read_header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if fortran and len(shape) > 1:
        raise ValueError("it is stored in Fortran's order; allowed: C's")
    return shape, dtype
