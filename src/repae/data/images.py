"""Any folder of images in class subfolders, as it lies on the disk."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Int64, UInt8
from PIL import Image, UnidentifiedImageError
from pydantic import Field
from torch import Tensor
from torch.utils.data import get_worker_info

from repae.config import Config, UserError
from repae.data.batch import Batch, Dataset, check_indices
from repae.data.crop import centre_crop
from repae.data.scan import readable, scan

FORMATS = ("JPEG", "PNG", "WEBP")
MOST_SKIPPED = 1000
"""After so many unreadable images in a row something other than the images is broken."""
MACHINE_TROUBLE = frozenset(
    {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN}
)
"""Failures of the machine and not of a file: to skip on them would give every run and process other data."""

logger = logging.getLogger("repae.data")


class FolderConfig(Config):
    """A folder with one subfolder of JPEG, PNG or WebP images for each class.

    Attributes:
        path: the folder; `~` is the home folder.
        resolution: side of the centre crop in pixels; smaller images are enlarged.
        flip: mirror each image in about half of the epochs. Off by default: text and digits have a handedness.
        on_error: an image that cannot be read is replaced by the next one that can ("skip", counted and warned of), or
            stops the run ("raise").
    """

    kind: Literal["folder"] = "folder"
    path: str = Field(min_length=1)
    resolution: int = Field(256, ge=4, le=8192)
    flip: bool = False
    on_error: Literal["skip", "raise"] = "skip"

    def open(self) -> ImageFolder:
        """The data set: lists the folder, reads no image yet.

        Raises:
            UserError: the folder holds nothing to train on.
        """
        return ImageFolder(self)


class BrokenImageError(Exception):
    """An image that cannot be read; the message is the reason."""


class ImageFolder(Dataset):
    """RGB images of a folder, cropped to the centre as ADM does it (`centre_crop`; colours: `to_rgb`).

    Classes are the sorted names of the folder's subfolders, images are sorted by name inside them. The content decides
    the format, whatever the suffix. An image that cannot be read is replaced, with its label and index, by the next
    readable one: a function of the index alone, so all processes and all later runs agree.
    """

    def __init__(self, config: FolderConfig) -> None:
        self.config = config
        self.root = Path(config.path).expanduser()
        self.channels = 3
        self.resolution = config.resolution
        self.flip = config.flip
        self.broken: dict[int, str] = {}
        self.class_names, self.names, labels, notes = scan(config.path)
        self.labels = torch.from_numpy(labels)
        for note in notes:
            logger.warning("data: %s", note)

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self.root / self.names[index]

    @property
    def fingerprint(self) -> str:
        """Digest of the resolution and of every file's name and size in bytes; the pixels are not read."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.blake2b(f"{self.resolution}".encode(), digest_size=16)
        for index in range(len(self)):
            name = self.names[index]
            try:
                size = (self.root / name).stat().st_size
            except OSError:
                size = -1
            digest.update(os.fsencode(name) + f"\0{size}\0".encode())
        return digest.hexdigest()

    def batch(self, indices: Int64[Tensor, " b"], flips: Bool[Tensor, " b"] | None = None) -> Batch:
        """The images at these indices, or those that stand in for them; see `Dataset.batch`.

        Raises:
            UserError: an image is broken and `on_error` is "raise"; or so many are that the folder must be at fault.
        """
        check_indices(indices, len(self))
        images = torch.empty((len(indices), 3, self.resolution, self.resolution), dtype=torch.uint8)
        present = indices.clone()
        for row, index in enumerate(indices.tolist()):
            present[row], image = self._read(index)
            images[row] = image.flip(-1) if flips is not None and flips[row] else image
        return Batch(images, self.labels[present], present)

    def note_broken(self, found: Mapping[int, str]) -> None:
        """Count unreadable images, and warn of them: of the first ten, then whenever their number has doubled."""
        for index, reason in found.items():
            if index in self.broken:
                continue
            self.broken[index] = reason
            count = len(self.broken)
            if get_worker_info() is None and (count <= 10 or count & (count - 1) == 0):
                logger.warning(
                    "data: image '%s' left out: %s; the next readable one takes its place (%d of %d left out so far)",
                    readable(self.path(index)), reason, count, len(self),
                )  # fmt: skip

    def _read(self, index: int) -> tuple[int, UInt8[Tensor, "3 r r"]]:
        """The index and the pixels of the image at an index, or of the next one that can be read."""
        tried = min(len(self), MOST_SKIPPED)
        for candidate in (i % len(self) for i in range(index, index + tried)):
            if candidate in self.broken:
                continue
            try:
                return candidate, decode(self.path(candidate), self.resolution)
            except BrokenImageError as error:
                if self.config.on_error == "raise":
                    raise UserError(
                        f"image '{readable(self.path(candidate))}' cannot be read: {error}; repair or remove it, or "
                        "leave broken images out with --data.on-error skip"
                    ) from error
                self.note_broken({candidate: str(error)})
        first = readable(self.path(index))
        raise UserError(
            f"none of {tried} images in a row can be read, from '{first}' on ({self.broken[index]}); check that the "
            f"folder '{readable(self.root)}' is still there and complete"
        )


def decode(path: Path, resolution: int) -> UInt8[Tensor, "3 r r"]:
    """Read one image file and cut its centre.

    Raises:
        BrokenImageError: with the reason, for any file that cannot be read as an image.
        UserError: the machine, not the file, failed.
    """
    try:
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            image.load()
            return torch.from_numpy(centre_crop(image, resolution)).permute(2, 0, 1).contiguous()
    except UnidentifiedImageError as error:
        empty = path.stat().st_size == 0
        raise BrokenImageError("the file is empty" if empty else "it is no JPEG, PNG or WebP image") from error
    except OSError as error:
        if error.errno in MACHINE_TROUBLE:
            raise UserError(
                f"reading '{readable(path)}' failed: {error.strerror}; this is the machine, not the image"
            ) from error
        raise BrokenImageError(error.strerror or str(error)) from error
    except MemoryError:
        raise
    except Exception as error:  # decoders of damaged files raise anything, struct.error and SyntaxError included
        raise BrokenImageError(str(error) or type(error).__name__) from error
