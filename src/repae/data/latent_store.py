"""Latents that were computed once, whatever file they are in: posteriors of images, teachers' tokens, by index."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int64
from pydantic import PositiveInt
from torch import Tensor

from repae.config import Config
from repae.data.batch import Latents


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
        return hashlib.sha256(json.dumps([self.mean, self.std]).encode()).hexdigest()

    def tensors(self) -> tuple[Float64[Tensor, " k"], Float64[Tensor, " k"]]:
        return torch.tensor(self.mean, dtype=torch.float64), torch.tensor(self.std, dtype=torch.float64)


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
