"""The embedded data set: 1,797 scanned handwritten digits that come with scikit-learn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Int64, UInt8
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from repae.config import Config
from repae.data.batch import Batch, Dataset, check_indices


class DigitsConfig(Config):
    """The embedded digits. `resolution`: side in pixels, a multiple of 4 from 8 (as scanned) to 256."""

    kind: Literal["digits"] = "digits"
    channels: ClassVar[int] = 1
    where: ClassVar[str] = "the embedded digits"
    resolution: int = Field(32, ge=8, le=256, multiple_of=4)

    def missing(self) -> Iterator[str]:
        yield from ()

    def open(self) -> Digits:
        return Digits(self)


class Digits(Dataset):
    """scikit-learn's `load_digits` (UCI optical recognition of handwritten digits, test part), grey, ten classes.

    The 8 x 8 scans of 0..16 are enlarged bicubically in float64, clamped to 0..255 and rounded half to even.
    `images` is the whole set, uint8 `[1797, 1, resolution, resolution]`. Mirrored digits are no digits: no flip.
    """

    def __init__(self, config: DigitsConfig) -> None:
        from sklearn.datasets import load_digits

        scans, labels = load_digits(return_X_y=True)
        self.channels = 1
        self.resolution = config.resolution
        self.class_names = tuple("0123456789")
        self.labels = torch.from_numpy(labels).long()
        self.images = enlarge(torch.from_numpy(scans).reshape(-1, 1, 8, 8), config.resolution)
        self.flip = False
        self.broken: dict[int, str] = {}

    @property
    def fingerprint(self) -> str:
        digest = hashlib.blake2b(str(tuple(self.images.shape)).encode(), digest_size=16)
        digest.update(self.images.numpy().tobytes())
        digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()

    def batch(self, indices: Int64[Tensor, " b"], flips: Bool[Tensor, " b"] | None = None) -> Batch:
        check_indices(indices, len(self))
        images = self.images[indices]
        if flips is not None:
            images = torch.where(flips[:, None, None, None], images.flip(-1), images)
        return Batch(images, self.labels[indices], indices)


def enlarge(scans: Tensor, resolution: int) -> UInt8[Tensor, "n 1 r r"]:
    """Scans `[n, 1, 8, 8]` of 0..16 as bytes at another size; in parts, for float64 takes eight times the memory."""
    return torch.cat(
        [
            functional.interpolate(part.double() * (255 / 16), (resolution, resolution), mode="bicubic")
            .round()
            .clamp(0, 255)
            .to(torch.uint8)
            for part in scans.split(256)
        ]
    )
