"""What a data set is, and what it hands to training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor


class Latents(NamedTuple):
    """The posteriors of images, as an autoencoder gave them once: float32, not normalised."""

    mean: Float[Tensor, "b k m n"]
    std: Float[Tensor, "b k m n"]


class Batch(NamedTuple):
    """Images with their classes, and what was computed of them beforehand.

    `images` are 0..255, of 0 x 0 pixels where training needs nothing but their latents; `labels` 0..num_classes-1;
    `indices` are the positions in the data set of the images that are really here, so that anything tabulated per image
    can be looked up. `latents` and `tokens`, each teacher's tokens `[B, N, D]` in float32, come from a cache of them.
    """

    images: UInt8[Tensor, "b c h w"]
    labels: Int64[Tensor, " b"]
    indices: Int64[Tensor, " b"]
    latents: Latents | None = None
    tokens: tuple[Float[Tensor, "b _ _"], ...] | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(
            change(self.images),
            change(self.labels),
            change(self.indices),
            None if self.latents is None else Latents(*map(change, self.latents)),
            None if self.tokens is None else tuple(map(change, self.tokens)),
        )

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Batch:
        return self.map(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        return self.map(Tensor.pin_memory)


class Dataset(ABC):
    """Labelled images of one size, reached by index.

    Attributes:
        channels: 1 for grey, 3 for RGB.
        resolution: side of every image in pixels.
        class_names: one name for each label.
        labels: the class of every image, by index.
        flip: whether training may mirror images; the loader draws which.
        block: consecutive images that the order keeps near each other, for slow storage; None shuffles all alike.
        broken: indices of the images that could not be read so far, with the reason. Each process counts what it met.
    """

    channels: int
    resolution: int
    class_names: tuple[str, ...]
    labels: Int64[Tensor, " n"]
    flip: bool
    block: int | None = None
    broken: dict[int, str]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hexadecimal digest that changes when the images or their order change; it names caches and protocols."""

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """What the image at an index is called, as in errors and lists; its number where it has no name."""
        return f"{index:08d}"

    def item(self, index: int) -> tuple[UInt8[Tensor, "c h w"], int]:
        """One image as it is, never mirrored, and its label."""
        batch = self.batch(torch.tensor([index]))
        return batch.images[0], int(batch.labels[0])

    @abstractmethod
    def batch(self, indices: Int64[Tensor, " b"], flips: Bool[Tensor, " b"] | None = None) -> Batch:
        """The images at these indices (0..len-1, repeats allowed), mirrored left to right where `flips` is true."""

    def note_broken(self, found: Mapping[int, str]) -> None:
        """Take over what a worker process found to be unreadable."""
        self.broken.update(found)


def check_indices(indices: Int64[Tensor, " b"], size: int) -> None:
    """Refuse indices outside 0..size-1, which tensors would take from the end without a word."""
    if len(indices) == 0:
        return
    least, most = int(indices.min()), int(indices.max())
    if least < 0 or most >= size:
        raise IndexError(f"indices {least}..{most} reach outside 0..{size - 1}")
