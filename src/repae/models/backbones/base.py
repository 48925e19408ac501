"""What every backbone answers: tokens and condition in, blocks by number, velocity out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from repae.config import Config, UserError, suggest
from repae.config.registry import Registry
from repae.models.projector import MLP, AnyProjector
from repae.runtime.parallel import Stacked

BACKBONES = Registry("backbone")
"""The kinds of `BackboneSetup`: a recipe's field ``backbone``."""

Latents = Float[Tensor, "b c h w"]
Times = Float[Tensor, " b"]
Labels = Int[Tensor, " b"]
Dropped = Bool[Tensor, " b"]
Tokens = Float[Tensor, "b n d"]
Condition = Float[Tensor, "b d"]

# Not typing.Self: the checker of shapes under test knows it inside classes of its own only.
SizesT = TypeVar("SizesT", bound="BackboneConfig")
SetupT = TypeVar("SetupT", bound="BackboneSetup")

Presets = Mapping[str, tuple[int, int, int, int]]
"""Depth, width, heads and patch of published sizes, by name."""


class BackboneConfig(Config):
    """Sizes of a backbone for given latents and classes; ``kind`` is that of its `BackboneSetup`.

    Attributes:
        input_size: side of the square latent.
        patch_size: side of the square of latent pixels that makes one token.
        in_channels: channels of the latent, and of the velocity.
        hidden_size: width of a token; a multiple of ``num_heads`` and of 4.
        num_classes: labels are 0..num_classes-1.
        class_dropout_prob: share of labels replaced by the null label in training; above 0 there is a null label.
        mlp_ratio: width of the hidden layer of the MLPs, relative to ``hidden_size``.
        qk_norm: queries and keys are normalised, per head.
        fused_attn: torch's fused attention instead of explicit products.
    """

    kind: ClassVar[str]
    presets: ClassVar[Presets]

    input_size: int = Field(default=32, ge=1)
    patch_size: int = Field(default=2, ge=1)
    in_channels: int = Field(default=4, ge=1)
    hidden_size: int = Field(default=1152, ge=4)
    depth: int = Field(default=28, ge=1)
    num_heads: int = Field(default=16, ge=1)
    num_classes: int = Field(default=1000, ge=1)
    class_dropout_prob: float = Field(default=0.1, ge=0, le=1)
    mlp_ratio: float = Field(default=4.0, gt=0)
    qk_norm: bool = False
    fused_attn: bool = True

    @classmethod
    def preset(cls: type[SizesT], name: str, **changes: Any) -> SizesT:
        """A published size by name, one of ``presets``, with fields changed by keyword.

        Raises:
            UserError: for an unknown name (with a suggestion) or a value that is not allowed.
        """
        return cls(**(_sizes(cls.presets, name) | changes))

    @model_validator(mode="after")
    def _sizes_fit(self) -> BackboneConfig:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"num_heads {self.num_heads} does not divide hidden_size {self.hidden_size}; "
                f"allowed: a divisor, such as {_nearest_divisor(self.hidden_size, self.num_heads)}"
            )
        if self.hidden_size % 4:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of 4, which the position table needs "
                "(sine and cosine of two coordinates)"
            )
        if self.input_size % self.patch_size:
            raise ValueError(
                f"input_size {self.input_size} is not divisible by patch_size {self.patch_size}; "
                f"allowed: a multiple of {self.patch_size}, or another patch_size"
            )
        return self

    @property
    def tokens(self) -> int:
        """Number of tokens of one latent."""
        return (self.input_size // self.patch_size) ** 2

    @property
    def null_label(self) -> int | None:
        """The label that stands for "no class", or None when the model was never trained without a class."""
        # Never a constant such as ImageNet's 1000: elsewhere that is a real class, or a row that does not exist.
        return self.num_classes if self.class_dropout_prob > 0 else None

    @abstractmethod
    def build(self) -> Backbone:
        """The backbone, with random weights."""


class BackboneSetup(Config):
    """Architecture of the denoiser; its input size, channels and classes follow from the data and the autoencoder.

    ``encoder_depth`` is the 1-based number of the block whose tokens are aligned. ``projector_dim`` is the width of the
    hidden layers of an MLP projector; a convolution has none.
    """

    sizes: ClassVar[type[BackboneConfig]]
    """What `sized` answers."""

    kind: str
    patch_size: int = Field(default=2, ge=1)
    hidden_size: int = Field(default=1152, ge=1)
    depth: int = Field(default=28, ge=1)
    num_heads: int = Field(default=16, ge=1)
    class_dropout_prob: float = Field(default=0.1, ge=0, lt=1)
    # Block 8 is where REPA and REPA-E align their largest models.
    encoder_depth: int = Field(default=8, ge=1)
    projector_dim: int = Field(default=2048, ge=1)
    projector: AnyProjector = MLP
    mlp_ratio: float = Field(default=4.0, gt=0)
    qk_norm: bool = False
    fused_attn: bool = True

    @classmethod
    def preset(cls: type[SetupT], name: str, **changes: Any) -> SetupT:
        """As `BackboneConfig.preset`."""
        return cls(**(_sizes(cls.sizes.presets, name) | changes))

    def sized(self, input_size: int, in_channels: int, num_classes: int) -> BackboneConfig:
        """The full configuration for given latents and classes."""
        return self.sizes(
            input_size=input_size, in_channels=in_channels, num_classes=num_classes, **self.architecture()
        )

    def architecture(self) -> dict[str, Any]:
        """The fields that shape the backbone itself, whatever it is aligned to."""
        return self.model_dump(exclude={"kind", "encoder_depth", "projector_dim", "projector"})


class Backbone(Stacked):
    """Velocity field v(x_t, t, y) of normalised latents; t = 0 is data, t = 1 is noise.

    ``embed``, ``run`` and ``final`` are its three parts, for whoever needs the tokens between two blocks.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def embed(self, x: Latents, t: Times, y: Labels, drop: Dropped | None = None) -> tuple[Tokens, Condition]:
        """Tokens in row-major order, and the condition that every block sees. Arguments as for `forward`."""

    @abstractmethod
    def run(self, tokens: Tokens, condition: Condition, start: int = 0, stop: int | None = None) -> Tokens:
        """Tokens after blocks number ``start`` + 1 to ``stop`` (the last one by default)."""

    @abstractmethod
    def final(self, tokens: Tokens, condition: Condition) -> Latents:
        """Velocity of the latents that the tokens make up."""

    def forward(self, x: Latents, t: Times, y: Labels, drop: Dropped | None = None) -> Latents:
        """Velocity at the normalised latents ``x`` of times ``t`` in [0, 1] and labels ``y`` in 0..num_classes.

        ``drop`` says whose labels are replaced by the null label, in training and evaluation alike. Without it, they
        are drawn with ``class_dropout_prob`` in train mode and none is replaced in eval mode.

        Raises:
            UserError: the latents have another shape than the configuration says.
        """
        tokens, condition = self.embed(x, t, y, drop)
        return self.final(self.run(tokens, condition), condition)

    def features(self, x: Latents, t: Times, y: Labels, depth: int) -> Tokens:
        """Tokens after the first ``depth`` blocks."""
        if not 0 <= depth <= self.config.depth:
            raise UserError(
                f"features after block {depth} were asked for; allowed: 0 to {self.config.depth}, the model's depth"
            )
        tokens, condition = self.embed(x, t, y)
        return self.run(tokens, condition, stop=depth)

    def _check(self, x: Latents) -> None:
        expected = (self.config.in_channels, self.config.input_size, self.config.input_size)
        if tuple(x.shape[1:]) != expected:
            raise UserError(
                f"this {type(self).__name__} takes latents of shape {expected}, these have {tuple(x.shape[1:])}; "
                "set its in_channels and input_size to theirs, or give others"
            )

    def _labels(self, y: Labels, drop: Dropped | None) -> Labels:
        """The labels, the dropped ones replaced by the null label."""
        if drop is None and self.training and self.config.null_label is not None:
            # For whoever trains without our steps; these draw for the whole global batch and pass `drop`.
            drop = torch.rand(y.shape, device=y.device) < self.config.class_dropout_prob
        return y if drop is None else torch.where(drop, self.config.num_classes, y)


def _sizes(presets: Presets, name: str) -> dict[str, Any]:
    if name not in presets:
        raise UserError(f"{name!r} is no published size; allowed: {', '.join(presets)}{suggest(name, presets)}")
    return dict(zip(("depth", "hidden_size", "num_heads", "patch_size"), presets[name]))


def _nearest_divisor(number: int, to: int) -> int:
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: abs(d - to))
