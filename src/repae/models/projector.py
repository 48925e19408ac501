"""The small network between the denoiser's tokens and a teacher's (REPA, arXiv 2410.06940, Sec. 3.2)."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor, nn

from repae.config import Config
from repae.models.layers import linear


class MLPProjectorConfig(Config):
    """Each token by itself, through two hidden layers (REPA)."""

    kind: Literal["mlp"] = "mlp"

    def build(self, hidden: int, projector_dim: int, out: int) -> nn.Module:
        """From tokens ``[B, T, hidden]`` to ``[B, T, out]``."""
        return Projector(hidden, projector_dim, out)


class ConvProjectorConfig(Config):
    """Each token with its neighbours, by one convolution without hidden layer (iREPA, arXiv 2512.10794).

    Attributes:
        kernel_size: side of the square of tokens that one sees; odd.
    """

    kind: Literal["conv"] = "conv"
    kernel_size: PositiveInt = 3

    @field_validator("kernel_size")
    @classmethod
    def _odd(cls, size: int) -> int:
        if size % 2 == 0:
            raise ValueError(f"{size} tokens have no middle one; allowed: an odd number, such as {size + 1}")
        return size

    def build(self, hidden: int, projector_dim: int, out: int) -> nn.Module:
        """From tokens ``[B, T, hidden]`` of a square grid to ``[B, T, out]``; ``projector_dim`` is that of an MLP."""
        return ConvProjector(hidden, out, self.kernel_size)


AnyProjector = Annotated[MLPProjectorConfig | ConvProjectorConfig, Field(discriminator="kind")]

MLP = MLPProjectorConfig()


class Projector(nn.Sequential):
    """Tokens ``[..., hidden]`` to a teacher's width: ``[..., out]``, through two hidden layers with SiLU."""

    def __init__(self, hidden: int, projector_dim: int, out: int) -> None:
        super().__init__(
            linear(hidden, projector_dim),
            nn.SiLU(),
            linear(projector_dim, projector_dim),
            nn.SiLU(),
            linear(projector_dim, out),
        )


class ConvProjector(nn.Module):
    """Tokens of a square grid, row by row, to a teacher's width by a convolution; outside the grid are zeros."""

    def __init__(self, hidden: int, out: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(hidden, out, kernel_size, padding=kernel_size // 2)
        nn.init.xavier_uniform_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n z"]:
        side = math.isqrt(tokens.shape[1])
        grid = tokens.transpose(1, 2).unflatten(2, (side, side))
        return self.conv(grid).flatten(2).transpose(1, 2)
