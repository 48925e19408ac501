"""Training on latents that were computed once: the data set whose batches bring them along."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int64
from pydantic import Field
from torch import Tensor

from repae.config import Config, UserError
from repae.config.errors import show
from repae.data.batch import Batch, Dataset, check_indices
from repae.data.latent_cache import CachedLatents
from repae.data.latent_store import LatentStore
from repae.data.reference_latents import ReferenceLatents


class LatentDataset(Dataset):
    """A data set whose batches bring cached latents along, and images only where somebody looks at them.

    Args:
        images: the data set that was cached; `Batch.images` are of 0 x 0 pixels, and none is read, without ``pixels``.
        store: its latents.
        teachers: numbers of the cached teachers whose tokens come along, in this order; none: no tokens.
        pixels: whether the images come too.
    """

    def __init__(
        self, images: Dataset, store: LatentStore, *, teachers: Sequence[int] = (), pixels: bool = False
    ) -> None:
        self.images, self.store, self.teachers, self.pixels = images, store, tuple(teachers), pixels
        self.channels, self.resolution = images.channels, images.resolution
        self.class_names, self.labels, self.flip = images.class_names, images.labels, images.flip
        self.broken = images.broken

    @property
    def fingerprint(self) -> str:
        return self.images.fingerprint

    def name(self, index: int) -> str:
        return self.images.name(index)

    def batch(self, indices: Int64[Tensor, " b"], flips: Bool[Tensor, " b"] | None = None) -> Batch:
        check_indices(indices, len(self))
        if self.pixels:
            images, labels, present = self.images.batch(indices, flips)[:3]
        else:
            # A latent may be of the image that stands in for an unreadable one; label and index are then that one's.
            present = self.store.present(indices)
            images = torch.empty((len(indices), self.channels, 0, 0), dtype=torch.uint8)
            labels = self.labels[present]
        tokens = tuple(self.store.tokens(teacher, present, flips) for teacher in self.teachers)
        return Batch(images, labels, present, self.store.moments(present, flips), tokens or None)

    def note_broken(self, found: Any) -> None:
        self.images.note_broken(found)


class LatentsConfig(Config):
    """Latents that were computed beforehand. ``path``: a folder made by `repae cache`, or the reference's ``.h5``."""

    path: str = Field(min_length=1)

    def open(self, dataset: Dataset) -> LatentStore:
        """The latents of a data set's images."""
        store = self.read(dataset)
        if isinstance(store, CachedLatents):
            _check_origin(store, dataset)
        if dataset.flip and not store.flipped:
            raise UserError(
                f"the data mirror images, and {store.where} holds no latents of mirrored images (mirrored latents are "
                "not the same); make a cache with `repae cache ... --flipped`, or set --data.flip false"
            )
        return store

    def read(self, dataset: Dataset | None = None) -> LatentStore:
        """The latents, whatever they are of; only the reference's file has to be told which images."""
        path = Path(self.path).expanduser()
        if not path.exists():
            raise UserError(f"latents: there is nothing at {path}; {REMEDY}")
        if path.is_dir():
            return CachedLatents(path)
        assert dataset is not None, "the reference's latents are found by the names of images"
        return ReferenceLatents(path, dataset)


REMEDY = "make them with `repae cache VAE --data DATA --out FOLDER`, or train from the images: --latents none"
"""What to do where latents cannot be used."""


def _check_origin(store: CachedLatents, dataset: Dataset) -> None:
    about = store.about
    if len(store) != about.images:
        raise UserError(
            f"{store.where} holds {len(store):,} latents of {about.images:,} images; make it again with `repae cache`"
        )
    for what, cached, here in (
        ("resolution", about.resolution, dataset.resolution),
        ("number of channels", about.channels, dataset.channels),
        ("number of images", about.images, len(dataset)),
        ("number of classes", len(about.class_names), dataset.num_classes),
        ("classes", about.class_names, dataset.class_names),
        ("fingerprint", about.data, dataset.fingerprint),
    ):
        if cached != here:
            raise UserError(
                f"{store.where} holds the latents of other images: their {what} was {show(cached)}, here it is "
                f"{show(here)}; give the latents of these images, or {REMEDY}"
            )
