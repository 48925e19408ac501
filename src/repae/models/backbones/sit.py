"""SiT, the diffusion transformer that predicts velocities (arXiv 2401.08740, with DiT's blocks, arXiv 2212.09748)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import nn

from repae.models.backbones.base import BACKBONES, BackboneConfig, BackboneSetup, Presets, Tokens
from repae.models.backbones.shared import Attention, Block, DiTBackbone
from repae.models.layers import linear

_SIZES = {"XL": (28, 1152, 16), "L": (24, 1024, 16), "B": (12, 768, 12), "S": (12, 384, 6)}
"""Depth, width and heads."""

_PRESETS = {f"SiT-{name}/{patch}": (*sizes, patch) for name, sizes in _SIZES.items() for patch in (1, 2, 4, 8)}


class SiTConfig(BackboneConfig):
    """Sizes of a SiT, as in every `BackboneConfig`."""

    kind: ClassVar[str] = "sit"
    presets: ClassVar[Presets] = _PRESETS

    def build(self) -> SiT:
        return SiT(self)


@BACKBONES.register
class SiTBackbone(BackboneSetup):
    __doc__ = BackboneSetup.__doc__

    kind: Literal["sit"] = "sit"  # type: ignore[assignment]
    sizes: ClassVar[type[BackboneConfig]] = SiTConfig


class SiT(DiTBackbone):
    """The transformer, with LayerNorm, and with LayerNorm of queries and keys where these are normalised."""

    def block(self) -> Block:
        c = self.config
        norm = nn.LayerNorm if c.qk_norm else nn.Identity
        attention = Attention(c.hidden_size, c.num_heads, norm, fused=c.fused_attn)
        return Block(c.hidden_size, attention, MLP(c.hidden_size, int(c.hidden_size * c.mlp_ratio)), self.norm)

    def norm(self, width: int) -> nn.Module:
        return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


class MLP(nn.Module):
    """Two linear layers with a tanh-approximated GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = linear(width, hidden)
        self.fc2 = linear(hidden, width)

    def forward(self, x: Tokens) -> Tokens:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
