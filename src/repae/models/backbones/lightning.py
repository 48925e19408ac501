"""LightningDiT (arXiv 2501.01423): DiT's blocks with SwiGLU, RMSNorm and rotary embeddings of both coordinates."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import model_validator
from torch import Tensor, nn

from repae.models.backbones.base import BACKBONES, BackboneConfig, BackboneSetup, Presets, Tokens
from repae.models.backbones.shared import Attention, Block, DiTBackbone
from repae.models.layers import linear

_PRESETS = {
    "LightningDiT-B/1": (12, 768, 12, 1),
    "LightningDiT-B/2": (12, 768, 12, 2),
    "LightningDiT-L/2": (24, 1024, 16, 2),
    "LightningDiT-XL/1": (28, 1152, 16, 1),
    "LightningDiT-XL/2": (28, 1152, 16, 2),
}
_EPS = 1e-6
_MAX_PERIOD = 10000.0


class LightningConfig(BackboneConfig):
    """Sizes as in every `BackboneConfig`; a head is a multiple of 4 wide (two coordinates, rotated in pairs).

    SwiGLU has two matrices in the place of an ordinary MLP's first, and its hidden layer is 2/3 of what ``mlp_ratio``
    says.
    """

    kind: ClassVar[str] = "lightning"
    presets: ClassVar[Presets] = _PRESETS

    @model_validator(mode="after")
    def _heads_rotate(self) -> LightningConfig:
        head = self.hidden_size // self.num_heads
        if head % 4:
            raise ValueError(
                f"hidden_size {self.hidden_size} and num_heads {self.num_heads} make heads of width {head}; rotary "
                "embeddings of two coordinates need a multiple of 4"
            )
        return self

    def build(self) -> LightningDiT:
        return LightningDiT(self)


@BACKBONES.register
class LightningBackbone(BackboneSetup):
    __doc__ = BackboneSetup.__doc__

    kind: Literal["lightning"] = "lightning"  # type: ignore[assignment]
    sizes: ClassVar[type[BackboneConfig]] = LightningConfig


class LightningDiT(DiTBackbone):
    """The transformer.

    Its own authors' time runs from noise to data; ours is that of every backbone here. Weights of theirs are turned
    round when they are imported.
    """

    def __init__(self, config: LightningConfig) -> None:
        head, side = config.hidden_size // config.num_heads, config.input_size // config.patch_size
        super().__init__(config, rotation_table(head, side))

    def block(self) -> Block:
        c = self.config
        norm = HeadNorm if c.qk_norm else nn.Identity
        attention = Attention(c.hidden_size, c.num_heads, norm, fused=c.fused_attn)
        hidden = int(2 / 3 * int(c.hidden_size * c.mlp_ratio))
        return Block(c.hidden_size, attention, SwiGLU(c.hidden_size, hidden), self.norm)

    def norm(self, width: int) -> nn.Module:
        return nn.RMSNorm(width, eps=_EPS)


class HeadNorm(nn.RMSNorm):
    """RMSNorm in its weights' precision, which autocast does not see to as it does for LayerNorm."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=_EPS)

    def forward(self, x: Float[Tensor, "b a n e"]) -> Float[Tensor, "b a n e"]:
        return super().forward(x.to(self.weight.dtype))


class SwiGLU(nn.Module):
    """silu(x W1) * (x W2), then a third matrix (arXiv 2002.05202); the first two are one."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12 = linear(width, 2 * hidden)
        self.w3 = linear(hidden, width)

    def forward(self, x: Tokens) -> Tokens:
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


def rotation_table(head: int, side: int) -> Float[Tensor, "2 n e"]:
    """Cosine and sine by which a head's channels turn at each token of a square grid, row by row.

    The first half of the channels turns by the row, the second by the column, neighbouring channels as one pair; the
    frequencies of a half are those of RoPE for its width.
    """
    half = head // 2
    frequency = _MAX_PERIOD ** -(torch.arange(0, half, 2, dtype=torch.float64, device="cpu") / half)
    angle = torch.arange(side, dtype=torch.float64, device="cpu")[:, None] * frequency.repeat_interleave(2)
    row, column = angle.repeat_interleave(side, dim=0), angle.repeat(side, 1)
    both = torch.cat((row, column), dim=1)
    return torch.stack((both.cos(), both.sin())).float().to(torch.get_default_device())
