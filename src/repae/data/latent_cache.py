"""The folder of latents that `repae cache` makes: what it says of its origin, and its arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import PositiveInt
from torch import Tensor

from repae.config import Config, check
from repae.data.batch import Latents
from repae.data.latent_store import CachedTokens, ChannelStatistics, LatentStore
from repae.data.shard_folder import FieldSpec, ShardFolder

MEAN, STD, PRESENT = "mean", "std", "present"
FLIPPED = "_flipped"
TYPES: dict[str, Literal["bfloat16", "float16", "float32"]] = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp32": "float32",
}


class LatentsAbout(Config):
    """What a folder of latents says of its origin; with equal texts two folders have equal bytes on one machine.

    Attributes:
        vae: digest of the autoencoder's weights (`repae.runtime.digest`).
        statistics: what a run on the images themselves would normalise its latents by.
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
    return f"tokens_{number}"


class CachedLatents(LatentStore):
    """A folder that `repae cache` made."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = ShardFolder(folder, "latents")
        self.folder.check_sizes()
        self.about = check(LatentsAbout, self.folder.plan.about, f"{folder}, about")
        self.where = str(folder)
        channels, height, width = self.folder.fields[MEAN].shape
        self.shape = (channels, height, width)
        self.vae = self.about.vae
        self.dtype = TYPES[self.about.dtype]
        self.flipped = self.about.flipped
        self.teachers = self.about.teachers
        self.statistics = self.about.statistics
        self.seal = self.folder.manifest.seal

    def __len__(self) -> int:
        return len(self.folder)

    def moments(self, indices: Int64[Tensor, " b"], flips: Bool[Tensor, " b"] | None = None) -> Latents:
        return Latents(self._rows(MEAN, indices, flips), self._rows(STD, indices, flips))

    def present(self, indices: Int64[Tensor, " b"]) -> Int64[Tensor, " b"]:
        return self.folder.rows(PRESENT, indices.numpy())

    def tokens(
        self, teacher: int, indices: Int64[Tensor, " b"], flips: Bool[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b n d"]:
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
