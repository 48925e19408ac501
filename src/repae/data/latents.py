"""Latents that were computed once: posteriors of a data set's images, and teacher tokens beside them, by index."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from pydantic import Field, PositiveInt
from torch import Tensor

from repae.config import Config, UserError, check
from repae.data.batch import Batch, Dataset, Latents, check_indices
from repae.data.sharded import FieldSpec, ShardFolder

MEAN, STD, PRESENT = "mean", "std", "present"
FLIPPED = "_flipped"
TYPES: dict[str, Literal["bfloat16", "float16", "float32"]] = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp32": "float32",
}


class CachedTokens(Config):
    """One teacher whose tokens are in a cache: its name, its configuration, its weights' digest, its tokens' shape."""

    name: str
    config: dict[str, Any]
    weights: str
    tokens: PositiveInt
    dim: PositiveInt


class ChannelStatistics(Config):
    """Mean and standard deviation of every latent channel over so many images, and what names them."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    images: PositiveInt

    @property
    def sha256(self) -> str:
        """Digest of the numbers to the last bit."""
        return hashlib.sha256(json.dumps([self.mean, self.std]).encode()).hexdigest()

    def tensors(self) -> tuple[Float64[Tensor, " k"], Float64[Tensor, " k"]]:
        """Mean and standard deviation."""
        return torch.tensor(self.mean, dtype=torch.float64), torch.tensor(self.std, dtype=torch.float64)


class LatentsAbout(Config):
    """What a folder of latents says of its origin; with equal texts two folders have equal bytes on one machine.

    Attributes:
        vae: digest of the autoencoder's weights (`repae.runtime.digest`).
        vae_config: its sizes.
        statistics: what a run on the images themselves would normalise its latents by.
        statistics_digest: of these.
        data: fingerprint of the images.
        images, resolution, channels, class_names: of the images.
        dtype: of moments and tokens as they are stored.
        arithmetic: in which they were computed.
        flipped: whether the latents of the mirrored images are there too.
        teachers: whose tokens are there.
    """

    vae: str
    vae_config: dict[str, Any]
    statistics: ChannelStatistics
    statistics_digest: str
    data: str
    images: PositiveInt
    resolution: PositiveInt
    channels: PositiveInt
    class_names: tuple[str, ...]
    dtype: Literal["bf16", "fp16", "fp32"]
    arithmetic: Literal["bf16", "fp16", "fp32"]
    flipped: bool
    teachers: tuple[CachedTokens, ...]

    def fields(self, shape: tuple[int, int, int]) -> tuple[FieldSpec, ...]:
        """The arrays of a folder of latents of this shape, (k, h, w)."""
        kind = TYPES[self.dtype]
        arrays = {MEAN: shape, STD: shape}
        arrays |= {tokens_field(number): (each.tokens, each.dim) for number, each in enumerate(self.teachers)}
        names = [name + ending for ending in ("", FLIPPED)[: 1 + self.flipped] for name in arrays]
        fields = [FieldSpec(name=name, dtype=kind, shape=arrays[name.removesuffix(FLIPPED)]) for name in names]
        return (*fields, FieldSpec(name=PRESENT, dtype="int64", shape=()))


def tokens_field(number: int) -> str:
    """The array that holds the tokens of a cache's teacher."""
    return f"tokens_{number}"


class LatentStore(ABC):
    """The posteriors of all images of one data set, whatever file they are in.

    Attributes:
        where: what it was opened from, as it is said in errors.
        shape: (k, h, w) of a latent.
        vae: digest of the autoencoder that made them; None where nobody wrote it down.
        dtype: "float32", "float16" or "bfloat16", as they are stored.
        flipped: whether the latents of mirrored images are there too.
        teachers: whose tokens are there.
        statistics: of every channel, where they are known without reading all.
        seal: digest of everything; None where there is none.
    """

    where: str
    shape: tuple[int, int, int]
    vae: str | None
    dtype: str
    flipped: bool
    teachers: tuple[CachedTokens, ...]
    statistics: ChannelStatistics | None
    seal: str | None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def moments(self, indices: Int64[Tensor, " b"], flips: Bool[Tensor, " b"] | None = None) -> Latents:
        """Mean and standard deviation of these images' posteriors, of the mirrored image where ``flips`` is true."""

    @abstractmethod
    def present(self, indices: Int64[Tensor, " b"]) -> Int64[Tensor, " b"]:
        """Which images are really there at these indices: an unreadable one has another in its place."""

    def tokens(
        self, teacher: int, indices: Int64[Tensor, " b"], flips: Bool[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Tokens of the teacher of this number, float32; as `moments`."""
        raise AssertionError(f"{self.where} holds no tokens")


class CachedLatents(LatentStore):
    """A folder that `repae cache` made.

    Raises:
        UserError: it is no such folder, it is not finished, it was altered, or a file of it has not its size.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = ShardFolder(folder, "latents")
        self.folder.check_sizes()
        self.about = check(LatentsAbout, self.folder.plan.about, f"{folder}, about")
        self.where = str(folder)
        self.shape = _latent_shape(self.folder.fields[MEAN].shape)
        self.vae = self.about.vae
        self.dtype = TYPES[self.about.dtype]
        self.flipped = self.about.flipped
        self.teachers = self.about.teachers
        self.statistics = self.about.statistics
        self.seal = self.folder.manifest.seal

    def __len__(self) -> int:
        return len(self.folder)

    def moments(self, indices: Int64[Tensor, " b"], flips: Bool[Tensor, " b"] | None = None) -> Latents:
        """As `LatentStore.moments`."""
        return Latents(self._rows(MEAN, indices, flips), self._rows(STD, indices, flips))

    def present(self, indices: Int64[Tensor, " b"]) -> Int64[Tensor, " b"]:
        """As `LatentStore.present`."""
        return self.folder.rows(PRESENT, indices.numpy())

    def tokens(
        self, teacher: int, indices: Int64[Tensor, " b"], flips: Bool[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """As `LatentStore.tokens`."""
        return self._rows(tokens_field(teacher), indices, flips)

    def _rows(self, field: str, indices: Int64[Tensor, " b"], flips: Bool[Tensor, " b"] | None) -> Tensor:
        if flips is None or not flips.any():
            return self.folder.rows(field, indices.numpy()).float()
        assert self.flipped, "mirrored images are asked of a cache without them"
        out = torch.empty((len(indices), *self.folder.fields[field].shape))
        for name, chosen in ((field, ~flips), (field + FLIPPED, flips)):
            if chosen.any():
                out[chosen] = self.folder.rows(name, indices[chosen].numpy()).float()
        return out


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
        """The images'."""
        return self.images.fingerprint

    def name(self, index: int) -> str:
        """The image's."""
        return self.images.name(index)

    def batch(self, indices: Int64[Tensor, " b"], flips: Bool[Tensor, " b"] | None = None) -> Batch:
        """As `Dataset.batch`, with latents, and with tokens where there are ``teachers``."""
        check_indices(indices, len(self))
        if self.pixels:
            images, labels, present = self.images.batch(indices, flips)[:3]
        else:
            present = self.store.present(indices)
            images = torch.empty((len(indices), self.channels, 0, 0), dtype=torch.uint8)
            labels = self.labels[present]
        tokens = tuple(self.store.tokens(teacher, present, flips) for teacher in self.teachers)
        return Batch(images, labels, present, self.store.moments(present, flips), tokens or None)

    def note_broken(self, found: Any) -> None:
        """As `Dataset.note_broken`."""
        self.images.note_broken(found)


class LatentsConfig(Config):
    """Latents that were computed beforehand. ``path``: a folder made by `repae cache`, or the reference's ``.h5``."""

    path: str = Field(min_length=1)

    def open(self, dataset: Dataset) -> LatentStore:
        """The latents of a data set's images.

        Raises:
            UserError: there are none, they are damaged, or they are of other images than these.
        """
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
        """The latents, whatever they are of; only the reference's file has to be told which images.

        Raises:
            UserError: there are none, or they are damaged.
        """
        path = Path(self.path).expanduser()
        if not path.exists():
            raise UserError(f"latents: there is nothing at {path}; {REMEDY}")
        if path.is_dir():
            return CachedLatents(path)
        from repae.data.reference_latents import ReferenceLatents

        assert dataset is not None, "the reference's latents are found by the names of images"
        return ReferenceLatents(path, dataset)


REMEDY = "make them with `repae cache VAE --data DATA --out FOLDER`, or train from the images: --latents none"
"""What to do where latents cannot be used."""


class _Difference(NamedTuple):
    what: str
    cached: object
    here: object


def _check_origin(store: CachedLatents, dataset: Dataset) -> None:
    about = store.about
    if len(store) != about.images:
        raise UserError(
            f"{store.where} holds {len(store):,} latents of {about.images:,} images; make it again with `repae cache`"
        )
    for difference in (
        _Difference("resolution", about.resolution, dataset.resolution),
        _Difference("number of channels", about.channels, dataset.channels),
        _Difference("number of images", about.images, len(dataset)),
        _Difference("number of classes", len(about.class_names), dataset.num_classes),
        _Difference("classes", about.class_names, dataset.class_names),
        _Difference("fingerprint", about.data, dataset.fingerprint),
    ):
        if difference.cached != difference.here:
            raise UserError(
                f"{store.where} holds the latents of other images: their {difference.what} was "
                f"{_short(difference.cached)}, here it is {_short(difference.here)}; give the latents of these images, "
                f"or {REMEDY}"
            )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _latent_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    channels, height, width = shape
    return channels, height, width
