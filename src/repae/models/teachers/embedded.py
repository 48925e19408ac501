"""The teacher that needs no weights from elsewhere: small, and trained without labels on a run's own images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from pydantic import Field, PositiveInt, model_validator
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from repae.config import Config, UserError, check, one_line, write_atomic
from repae.models.backbones.shared import position_table
from repae.models.teachers.base import Teacher
from repae.models.weight_files import fit

PATCH = 8
"""Pixels along the side of the square that one token stands for."""

_SCHEMA = 1
_WEIGHTS, _FACTS = "teacher.safetensors", "teacher.json"


class EmbeddedTeacherConfig(Config):
    """Size of the embedded teacher: three convolutional stages, each at half the side of the former, then one block.

    Attributes:
        image_channels: 1 for grey, 3 for RGB images.
        resolution: side of the images in pixels; (resolution / 8)^2 tokens.
        widths: channels of the three stages; the last is the width of a token.
        heads: attention heads of the block.
        position_scale: factor of the sine-cosine position table. Below 1, or position outweighs content.
    """

    image_channels: Literal[1, 3] = 1
    resolution: int = Field(32, ge=PATCH, multiple_of=PATCH)
    widths: tuple[PositiveInt, PositiveInt, PositiveInt] = (32, 64, 96)
    heads: PositiveInt = 4
    position_scale: float = Field(0.2, ge=0)

    @model_validator(mode="after")
    def _heads_fit(self) -> EmbeddedTeacherConfig:
        if self.dim % self.heads or self.dim % 4:
            raise ValueError(f"the last of widths is {self.dim}; it must be a multiple of 4 and of heads {self.heads}")
        return self

    @property
    def dim(self) -> int:
        return self.widths[-1]

    @property
    def grid(self) -> int:
        return self.resolution // PATCH


class EmbeddedNetwork(nn.Module):
    """Images in [0, 1] to tokens: convolutions that see edges at once, one transformer block that mixes places.

    A patch embedding in place of the convolutions learns next to nothing within the minute that this teacher has.
    """

    positions: Tensor

    def __init__(self, config: EmbeddedTeacherConfig) -> None:
        super().__init__()
        self.config = config
        first, second, third = config.widths
        self.stages = nn.ModuleList(
            [
                nn.Sequential(nn.AvgPool2d(2), _convolution(config.image_channels, first)),
                nn.Sequential(nn.MaxPool2d(2), _convolution(first, second), _convolution(second, second)),
                nn.Sequential(nn.MaxPool2d(2), _convolution(second, third), _convolution(third, third)),
            ]
        )
        table = config.position_scale * position_table(config.dim, config.grid)
        # A function of the sizes, hence in no file.
        self.register_buffer("positions", table, persistent=False)
        self.block = _Block(config.dim, config.heads)
        self.norm = nn.LayerNorm(config.dim)

    def feature_maps(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b c2 h2 w2"]]:
        """Output of each convolutional stage: sides /2, /4 and /8."""
        maps = []
        # The CPU's convolutions are a quarter faster in this order of memory. Only images are turned to it: the fused
        # AdamW is wrong where a checkpoint has given moments another order than their weights.
        images = images.clone(memory_format=torch.channels_last)
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return maps

    def local(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Tokens that know little beyond their own place, row by row from the top left corner."""
        return self.feature_maps(images)[-1].flatten(2).transpose(1, 2)

    def mixed(self, local: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Tokens that have seen each other."""
        return self.norm(self.block(local + self.positions))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        return self.mixed(self.local(images))


class EmbeddedTeacher(Teacher):
    """An `EmbeddedNetwork` that is done learning; its tokens are given minus their mean at each place over a data set.

    Without that subtraction a good part of a token says where it is, which the denoiser knows already.

    Attributes:
        origin: where the weights come from, as JSON; kept with them.
    """

    name = "embedded"
    centre: Tensor

    def __init__(self, config: EmbeddedTeacherConfig) -> None:
        super().__init__()
        self.config = config
        self.dim = config.dim
        self.origin: dict[str, Any] = {}
        self.network = EmbeddedNetwork(config)
        self.register_buffer("centre", torch.zeros(config.grid**2, config.dim))
        self.requires_grad_(False).eval()

    def tokens(self, resolution: int) -> int:
        """(resolution / 8)^2, for the one resolution that the teacher was made for."""
        if resolution != self.config.resolution:
            raise UserError(
                f"the embedded teacher was made for images of {self.config.resolution} px, these have {resolution} px; "
                f"set data.resolution to {self.config.resolution}, or train a teacher with resolution {resolution}"
            )
        return self.config.grid**2

    @torch.no_grad()
    def forward(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Tokens minus the mean token of their place, float32."""
        return self._raw(images) - self.centre

    def features(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b c2 h2 w2"]]:
        """Maps of the three convolutional stages for images in [-1, 1]; differentiable in the images."""
        self._check(images)
        return self.network.feature_maps((images + 1) / 2)

    @torch.no_grad()
    def fit_centre(self, batches: Iterable[UInt8[Tensor, "_ c h w"]]) -> None:
        """Take the mean token of each place over all images of ``batches`` for what is subtracted from now on."""
        # Float64, which not every device has: hence on the CPU.
        total = torch.zeros_like(self.centre, dtype=torch.float64, device="cpu")
        count = 0
        for images in batches:
            total += self._raw(images.to(self.centre.device)).cpu().double().sum(0)
            count += len(images)
        assert count, "the mean over no images"
        self.centre.copy_(total / count)

    def save(self, folder: str | Path, origin: Mapping[str, Any] | None = None) -> None:
        """Write weights (safetensors) and facts (JSON) to ``folder``, each file whole or not at all.

        ``origin`` replaces the present `origin`: data, seed, steps and figures, say.
        """
        if origin is not None:
            self.origin = dict(origin)
        weights = save_safetensors({name: tensor.contiguous() for name, tensor in self.state_dict().items()})
        facts = {
            "schema": _SCHEMA,
            "kind": self.name,
            "config": self.config.model_dump(mode="json"),
            "sha256": hashlib.sha256(weights).hexdigest(),
            "origin": self.origin,
        }
        write_atomic(Path(folder) / _WEIGHTS, weights)
        write_atomic(Path(folder) / _FACTS, json.dumps(facts, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> EmbeddedTeacher:
        """The teacher that `save` wrote.

        Raises:
            UserError: the folder holds no teacher, one of another schema, or a damaged one.
        """
        facts_file, weights_file = Path(folder) / _FACTS, Path(folder) / _WEIGHTS
        try:
            facts = json.loads(facts_file.read_text(encoding="utf-8"))
            weights = weights_file.read_bytes()
        except FileNotFoundError as error:
            raise UserError(
                f"{folder} holds no teacher: {Path(error.filename).name} is missing; "
                "give the folder that EmbeddedTeacher.save wrote"
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(
                f"the teacher in {folder} cannot be read: {one_line(error)}; copy or train the teacher again"
            ) from None
        found = (facts.get("kind"), facts.get("schema")) if isinstance(facts, dict) else (None, None)
        if found != (cls.name, _SCHEMA):
            raise UserError(
                f"{facts_file} is of kind {found[0]!r} and schema {found[1]!r}; allowed: {cls.name!r} and {_SCHEMA}; "
                "train the teacher again"
            )
        if hashlib.sha256(weights).hexdigest() != facts.get("sha256"):
            raise UserError(f"{weights_file} is not the file that {_FACTS} describes; copy or train the teacher again")
        teacher = cls(check(EmbeddedTeacherConfig, facts.get("config"), str(facts_file)))
        complaint, remedy = f"{weights_file} does not fit {_FACTS}", "copy or train the teacher again"
        try:
            fit(teacher, load_safetensors(weights), complaint, remedy)
        except SafetensorError as error:
            raise UserError(f"{complaint}: {one_line(error)}; {remedy}") from None
        teacher.origin = facts.get("origin", {})
        return teacher

    def _raw(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        self._check(images)
        return self.network(images.float() / 255).float()

    def _check(self, images: Tensor) -> None:
        config = self.config
        expected = (config.image_channels, config.resolution, config.resolution)
        if tuple(images.shape[1:]) != expected:
            raise UserError(
                f"the embedded teacher was made for images of {expected} (channels, height, width), these are "
                f"{tuple(images.shape[1:])}; use the data it was made for, or train a teacher on these"
            )


def _convolution(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )


class _Block(nn.Module):
    """A pre-norm transformer block (Vaswani et al., arXiv 1706.03762; Dosovitskiy et al., arXiv 2010.11929)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        heads = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads.unbind(0))
        x = x + self.merge(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))
