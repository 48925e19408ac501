"""A data set of encoded images from any source, decoded and cropped as they are asked for."""

from __future__ import annotations

import errno
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Int64, UInt8
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.utils.data import get_worker_info

from repae.config import Config, UserError
from repae.config.files import readable
from repae.data.batch import Batch, Dataset, check_indices
from repae.data.decode import MOST_PIXELS, decode
from repae.data.image_source import BrokenImageError, Digest, ImageSource
from repae.runtime.remote import is_url

MOST_SKIPPED = 1000
"""After so many unreadable images in a row something other than the images is broken."""
MACHINE_TROUBLE = frozenset(
    {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN}
)
"""Failures of the machine and not of a file: to skip on them would give every run and process other data."""

logger = logging.getLogger("repae.data")


class PixelsConfig(Config, ABC):
    """Images from anywhere, cut to squares as ADM does it.

    Attributes:
        resolution: side of the centre crop in pixels; smaller images are enlarged.
        flip: mirror each image in about half of the epochs. Off by default: text and digits have a handedness.
        upright: turn photographs as their EXIF orientation says. ADM and the published runs do not.
        most_pixels: a larger image counts as unreadable, before it fills the memory.
        block: shuffle blocks of so many consecutive images, and inside 16 blocks at a time, for storage where jumping
            is slow; None shuffles all images alike.
        on_error: an image that cannot be read is replaced by the next one that can ("skip", counted and warned of), or
            stops the run ("raise").
    """

    channels: ClassVar[int] = 3
    kind: Any
    resolution: int = Field(256, ge=4, le=8192)
    flip: bool = False
    upright: bool = False
    most_pixels: int = Field(default=MOST_PIXELS, ge=1, le=2 * MOST_PIXELS)
    block: PositiveInt | None = None
    on_error: Literal["skip", "raise"] = "skip"

    @property
    @abstractmethod
    def where(self) -> str:
        """What the images come from, in a few words."""

    def missing(self) -> Iterator[str]:
        """What is not there that `source` needs, and what to do about it; nothing is listed for it."""
        yield from ()

    @abstractmethod
    def source(self) -> ImageSource:
        """The encoded images: listed, none is read yet.

        Raises:
            UserError: there is nothing to train on; says what is expected.
        """

    def open(self) -> ImageDataset:
        return ImageDataset(self.source(), self)


class ImagesConfig(PixelsConfig, ABC):
    """Images from one source, with classes of their own or all taken as one; other fields as in `PixelsConfig`.

    Attributes:
        path: where the source is; `~` is the home folder.
        labels: "given": the classes that the source has; "none": one class `all`, to train without classes.
    """

    path: str = Field(min_length=1)
    labels: Literal["given", "none"] = "given"

    @property
    def where(self) -> str:
        return self.path

    def missing(self) -> Iterator[str]:
        if not is_url(self.path) and not Path(self.path).expanduser().exists():
            yield f"data: there is nothing at {self.path}; put the images there, or say where they are with --data PATH"


class ImageDataset(Dataset):
    """RGB images of a source, decoded when asked for and cropped to the centre (`decode`).

    An image that cannot be read is replaced, with its label and index, by the next readable one: a function of the
    index alone, so all processes and all later runs agree.
    """

    def __init__(self, source: ImageSource, config: PixelsConfig) -> None:
        self.source = source
        self.config = config
        self.channels = 3
        self.resolution = config.resolution
        self.flip = config.flip
        self.block = config.block
        self.broken: dict[int, str] = {}
        self.class_names = source.class_names
        self.labels = torch.from_numpy(source.labels)
        for note in source.notes:
            logger.warning("data: %s", note)

    @property
    def fingerprint(self) -> str:
        return str(Digest(self.source.fingerprint, self.resolution, *(["upright"] if self.config.upright else [])))

    def name(self, index: int) -> str:
        return self.source.name(index)

    def batch(self, indices: Int64[Tensor, " b"], flips: Bool[Tensor, " b"] | None = None) -> Batch:
        """The images at these indices, or those that stand in for them; see `Dataset.batch`.

        Raises:
            UserError: an image is broken and `on_error` is "raise"; or so many are that the source must be at fault.
        """
        check_indices(indices, len(self))
        images = torch.empty((len(indices), 3, self.resolution, self.resolution), dtype=torch.uint8)
        present = indices.clone()
        for row, index in enumerate(indices.tolist()):
            present[row], image = self._standing_in(index)
            images[row] = image.flip(-1) if flips is not None and flips[row] else image
        return Batch(images, self.labels[present], present)

    def read(self, index: int) -> UInt8[Tensor, "3 r r"]:
        """The image at an index itself.

        Raises:
            BrokenImageError: it cannot be read, with the reason.
            UserError: the machine, not the image, failed.
        """
        return self.decoded(self.encoded(index))

    def decoded(self, encoded: bytes) -> UInt8[Tensor, "3 r r"]:
        return decode(encoded, self.resolution, upright=self.config.upright, most_pixels=self.config.most_pixels)

    def encoded(self, index: int) -> bytes:
        try:
            return self.source.read(index)
        except OSError as error:
            if error.errno in MACHINE_TROUBLE:
                raise UserError(
                    f"reading '{self.source.name(index)}' failed: {error.strerror}; this is the machine, not the image"
                ) from error
            raise BrokenImageError(error.strerror or str(error)) from error

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
                    readable(self.source.name(index)), reason, count, len(self),
                )  # fmt: skip

    def _standing_in(self, index: int) -> tuple[int, UInt8[Tensor, "3 r r"]]:
        tried = min(len(self), MOST_SKIPPED)
        for candidate in (i % len(self) for i in range(index, index + tried)):
            if candidate in self.broken:
                continue
            try:
                return candidate, self.read(candidate)
            except BrokenImageError as error:
                if self.config.on_error == "raise":
                    raise UserError(
                        f"image '{readable(self.source.name(candidate))}' cannot be read: {error}; repair or remove "
                        "it, or leave broken images out with --data.on-error skip"
                    ) from error
                self.note_broken({candidate: str(error)})
        first = readable(self.source.name(index))
        raise UserError(
            f"none of {tried} images in a row can be read, from '{first}' on ({self.broken[index]}); check that "
            f"'{self.source.where}' is still there and complete"
        )
