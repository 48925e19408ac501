"""SiT, the diffusion transformer that predicts velocities (arXiv 2401.08740, with DiT's blocks, arXiv 2212.09748)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from repae.models.backbones.base import BACKBONES, Backbone, BackboneConfig, BackboneSetup, preset_sizes
from repae.models.backbones.shared import (
    FinalLayer,
    LabelEmbedder,
    PatchEmbedder,
    TimeEmbedder,
    modulate,
    position_table,
    unpatchify,
)
from repae.models.layers import linear

_SIZES = {"XL": (28, 1152, 16), "L": (24, 1024, 16), "B": (12, 768, 12), "S": (12, 384, 6)}
"""Depth, width and heads of the published sizes."""

_PRESETS = {f"SiT-{name}/{patch}": (*sizes, patch) for name, sizes in _SIZES.items() for patch in (1, 2, 4, 8)}


class SiTConfig(BackboneConfig):
    """Sizes of a SiT.

    Attributes:
        mlp_ratio: width of the hidden layer of the MLPs, relative to ``hidden_size``.
        qk_norm: LayerNorm of queries and keys, per head.
        fused_attn: torch's fused attention instead of explicit products.
    """

    kind: ClassVar[str] = "sit"

    mlp_ratio: float = Field(default=4.0, gt=0)
    qk_norm: bool = False
    fused_attn: bool = True

    @classmethod
    def preset(cls, name: str, **changes: Any) -> SiTConfig:
        """A published size by name, ``SiT-{S,B,L,XL}/{1,2,4,8}``, with fields changed by keyword.

        Raises:
            UserError: for an unknown name (with a suggestion) or a value that is not allowed.
        """
        return cls(**(preset_sizes("SiT", _PRESETS, name) | changes))

    def build(self) -> SiT:
        return SiT(self)


@BACKBONES.register
class SiTBackbone(BackboneSetup):
    __doc__ = BackboneSetup.__doc__

    kind: Literal["sit"] = "sit"  # type: ignore[assignment]
    mlp_ratio: float = Field(default=4.0, gt=0)
    qk_norm: bool = False
    fused_attn: bool = True

    @classmethod
    def preset(cls, name: str, **changes: Any) -> SiTBackbone:
        """The published sizes by name, such as ``SiT-XL/2``. Raises as `SiTConfig.preset`."""
        return cls(**(preset_sizes("SiT", _PRESETS, name) | changes))

    def sized(self, input_size: int, in_channels: int, num_classes: int) -> SiTConfig:
        return SiTConfig(input_size=input_size, in_channels=in_channels, num_classes=num_classes, **self.architecture())


class SiT(Backbone):
    """The transformer; initially every block is the identity and the velocity is zero (DiT's adaLN-Zero).

    The position table is a buffer: it never trains. It is saved nevertheless, because published checkpoints of the
    reference hold tables that were trained by accident and must keep their values.
    """

    pos_embed: Tensor

    def __init__(self, config: SiTConfig) -> None:
        super().__init__()
        self._config = config
        c, width = config, config.hidden_size
        self.x_embedder = PatchEmbedder(c.in_channels, c.patch_size, width)
        self.t_embedder = TimeEmbedder(width)
        self.y_embedder = LabelEmbedder(c.num_classes, width, has_null=c.null_label is not None)
        self.register_buffer("pos_embed", position_table(width, c.input_size // c.patch_size))
        self.blocks = nn.ModuleList(
            Block(width, c.num_heads, int(width * c.mlp_ratio), qk_norm=c.qk_norm, fused=c.fused_attn)
            for _ in range(c.depth)
        )
        self.final_layer = FinalLayer(
            width, c.patch_size, c.in_channels, nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        )

    @property
    def config(self) -> SiTConfig:
        return self._config

    def embed(
        self,
        x: Float[Tensor, "b c h w"],
        t: Float[Tensor, " b"],
        y: Int[Tensor, " b"],
        drop: Bool[Tensor, " b"] | None = None,
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b d"]]:
        self._check(x)
        condition = self.t_embedder(t) + self.y_embedder(self._labels(y, drop))
        return self.x_embedder(x) + self.pos_embed, condition

    def run(
        self, tokens: Float[Tensor, "b n d"], condition: Float[Tensor, "b d"], start: int = 0, stop: int | None = None
    ) -> Float[Tensor, "b n d"]:
        for block in self.blocks[start:stop]:
            tokens = block(tokens, condition)
        return tokens

    def final(self, tokens: Float[Tensor, "b n d"], condition: Float[Tensor, "b d"]) -> Float[Tensor, "b c h w"]:
        return unpatchify(self.final_layer(tokens, condition), self.config.patch_size)

    def repeated_parts(self) -> list[nn.Module]:
        return list(self.blocks)


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int, *, qk_norm: bool, fused: bool) -> None:
        super().__init__()
        self.heads = heads
        self.fused = fused
        self.qkv = linear(width, 3 * width)
        self.q_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.proj = linear(width, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Attention over all tokens."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # A norm under autocast answers in float32; the three must agree.
        q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1).to(v.dtype) @ v
        return self.proj(mixed.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers with a tanh-approximated GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = linear(width, hidden)
        self.fc2 = linear(hidden, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Each token by itself."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    """Transformer block with adaLN-Zero conditioning (DiT, arXiv 2212.09748, Sec. 3.2)."""

    def __init__(self, width: int, heads: int, mlp_width: int, *, qk_norm: bool, fused: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attn = Attention(width, heads, qk_norm=qk_norm, fused=fused)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = MLP(width, mlp_width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), linear(width, 6 * width, std=0.0))

    def forward(self, x: Float[Tensor, "b n d"], condition: Float[Tensor, "b d"]) -> Float[Tensor, "b n d"]:
        """Tokens after attention and MLP, each shifted, scaled and gated by the condition."""
        modulation = self.adaLN_modulation(condition).unsqueeze(1).chunk(6, dim=2)
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = modulation
        x = x + gate_attn * self.attn(modulate(self.norm1(x), shift_attn, scale_attn))
        return x + gate_mlp * self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp))
