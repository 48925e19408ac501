"""A little data set of pictures, a tiny autoencoder and a teacher by formula: what tests of cached latents need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from repae.data import FolderConfig
from repae.models.autoencoders import Autoencoder, TinyConfig
from repae.models.teachers.base import Teacher
from repae.preparation.encode_latents import Encoder
from repae.runtime.precision import Precision

CPU = torch.device("cpu")
RESOLUTION, IMAGES, CLASSES = 16, 11, 3
VAE = TinyConfig(base_channels=8, latent_channels=2)
TEACHER = {"kind": "shades"}


class Shades(Teacher):
    """The mean colour of each quarter of an image, in six weighted sums: nothing is symmetric in it."""

    name = "shades"
    dim = 6

    def __init__(self, seed: int = 5) -> None:
        super().__init__()
        weights = torch.randn(3, self.dim, generator=torch.Generator().manual_seed(seed))
        self.weights = nn.Parameter(weights, requires_grad=False)

    def tokens(self, resolution: int) -> int:
        return 4

    @torch.no_grad()
    def forward(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        quarters = nn.functional.adaptive_avg_pool2d(images.float() / 255, 2)
        return quarters.flatten(2).transpose(1, 2) @ self.weights


def pictures(folder: Path, count: int = IMAGES, seed: int = 0) -> Path:
    """A folder of so many pictures in three classes, named as the reference names them."""
    source = np.random.default_rng(seed)
    for index in range(count):
        path = folder / f"{index % CLASSES:05d}" / f"img{index:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(source.integers(0, 256, (RESOLUTION, RESOLUTION, 3), dtype=np.uint8)).save(path)
    return folder


def data(folder: Path, **changes: object) -> FolderConfig:
    """Its configuration."""
    return FolderConfig(path=str(folder), resolution=RESOLUTION).replace(**changes)


def autoencoder(seed: int = 0) -> Autoencoder:
    """A tiny one with random weights and deviations that matter."""
    torch.manual_seed(seed)
    return VAE.build(3).eval().requires_grad_(False)


def encoder(seed: int = 0, teachers: bool = True) -> Encoder:
    """Of the autoencoder of that seed, with the teacher."""
    known = [(TEACHER, Shades())] if teachers else []
    return Encoder(autoencoder(seed), VAE.model_dump(mode="json"), known, Precision("fp32", CPU))
