"""LightningDiT (arXiv 2501.01423): DiT's blocks with SwiGLU, RMSNorm and rotary embeddings of both coordinates."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
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
from repae.models.layers import at_least_float32, linear

_SIZES = {
    "LightningDiT-B/1": (12, 768, 12, 1),
    "LightningDiT-B/2": (12, 768, 12, 2),
    "LightningDiT-L/2": (24, 1024, 16, 2),
    "LightningDiT-XL/1": (28, 1152, 16, 1),
    "LightningDiT-XL/2": (28, 1152, 16, 2),
}
"""Depth, width, heads and patch of the published sizes."""

_EPS = 1e-6
_MAX_PERIOD = 10000.0


class LightningConfig(BackboneConfig):
    """Sizes of a LightningDiT; a head is a multiple of 4 wide (two coordinates, rotated in pairs).

    Attributes:
        mlp_ratio: width of the MLPs' hidden layer in an ordinary block, relative to ``hidden_size``; SwiGLU has two
            matrices in the place of one and takes 2/3 of it.
        qk_norm: RMSNorm of queries and keys, per head.
        fused_attn: torch's fused attention instead of explicit products.
    """

    kind: ClassVar[str] = "lightning"

    mlp_ratio: float = Field(default=4.0, gt=0)
    qk_norm: bool = False
    fused_attn: bool = True

    @model_validator(mode="after")
    def _heads_rotate(self) -> LightningConfig:
        head = self.hidden_size // self.num_heads
        if head % 4:
            raise ValueError(
                f"hidden_size {self.hidden_size} and num_heads {self.num_heads} make heads of width {head}; rotary "
                "embeddings of two coordinates need a multiple of 4"
            )
        return self

    @classmethod
    def preset(cls, name: str, **changes: Any) -> LightningConfig:
        """A published size by name, such as ``LightningDiT-XL/1``, with fields changed by keyword.

        Raises:
            UserError: for an unknown name (with a suggestion) or a value that is not allowed.
        """
        return cls(**(preset_sizes("LightningDiT", _SIZES, name) | changes))

    def build(self) -> LightningDiT:
        return LightningDiT(self)


@BACKBONES.register
class LightningBackbone(BackboneSetup):
    __doc__ = BackboneSetup.__doc__

    kind: Literal["lightning"] = "lightning"  # type: ignore[assignment]
    mlp_ratio: float = Field(default=4.0, gt=0)
    qk_norm: bool = False
    fused_attn: bool = True

    @classmethod
    def preset(cls, name: str, **changes: Any) -> LightningBackbone:
        """The published sizes by name. Raises as `LightningConfig.preset`."""
        return cls(**(preset_sizes("LightningDiT", _SIZES, name) | changes))

    def sized(self, input_size: int, in_channels: int, num_classes: int) -> LightningConfig:
        return LightningConfig(
            input_size=input_size, in_channels=in_channels, num_classes=num_classes, **self.architecture()
        )


class LightningDiT(Backbone):
    """The transformer; initially every block is the identity and the velocity is zero.

    Its own authors' time runs from noise to data; ours is that of every backbone here. Weights of theirs are turned
    round when they are imported.
    """

    pos_embed: Tensor
    rotation: Tensor

    def __init__(self, config: LightningConfig) -> None:
        super().__init__()
        self._config = config
        c, width, side = config, config.hidden_size, config.input_size // config.patch_size
        self.x_embedder = PatchEmbedder(c.in_channels, c.patch_size, width)
        self.t_embedder = TimeEmbedder(width)
        self.y_embedder = LabelEmbedder(c.num_classes, width, has_null=c.null_label is not None)
        self.register_buffer("pos_embed", position_table(width, side))
        # A function of the sizes alone, hence in no checkpoint.
        self.register_buffer("rotation", rotation_table(width // c.num_heads, side), persistent=False)
        self.blocks = nn.ModuleList(LightningBlock(config) for _ in range(c.depth))
        self.final_layer = FinalLayer(width, c.patch_size, c.in_channels, nn.RMSNorm(width, eps=_EPS))

    @property
    def config(self) -> LightningConfig:
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
            tokens = block(tokens, condition, self.rotation)
        return tokens

    def final(self, tokens: Float[Tensor, "b n d"], condition: Float[Tensor, "b d"]) -> Float[Tensor, "b c h w"]:
        return unpatchify(self.final_layer(tokens, condition), self.config.patch_size)

    def repeated_parts(self) -> list[nn.Module]:
        return list(self.blocks)


class LightningBlock(nn.Module):
    """Transformer block with adaLN-Zero conditioning (DiT, arXiv 2212.09748, Sec. 3.2)."""

    def __init__(self, config: LightningConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.norm1 = nn.RMSNorm(width, eps=_EPS)
        self.attn = RotaryAttention(width, config.num_heads, qk_norm=config.qk_norm, fused=config.fused_attn)
        self.norm2 = nn.RMSNorm(width, eps=_EPS)
        self.mlp = SwiGLU(width, int(2 / 3 * int(width * config.mlp_ratio)))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), linear(width, 6 * width, std=0.0))

    def forward(
        self, x: Float[Tensor, "b n d"], condition: Float[Tensor, "b d"], rotation: Float[Tensor, "2 n e"]
    ) -> Float[Tensor, "b n d"]:
        """Tokens after attention and MLP, each shifted, scaled and gated by the condition."""
        modulation = self.adaLN_modulation(condition).unsqueeze(1).chunk(6, dim=2)
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = modulation
        x = x + gate_attn * self.attn(modulate(self.norm1(x), shift_attn, scale_attn), rotation)
        return x + gate_mlp * self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp))


class RotaryAttention(nn.Module):
    """Multi-head self-attention whose queries and keys are rotated by their place (RoPE, arXiv 2104.09864)."""

    def __init__(self, width: int, heads: int, *, qk_norm: bool, fused: bool) -> None:
        super().__init__()
        self.heads = heads
        self.fused = fused
        self.qkv = linear(width, 3 * width)
        self.q_norm = nn.RMSNorm(width // heads, eps=_EPS) if qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(width // heads, eps=_EPS) if qk_norm else nn.Identity()
        self.proj = linear(width, width)

    def forward(self, x: Float[Tensor, "b n d"], rotation: Float[Tensor, "2 n e"]) -> Float[Tensor, "b n d"]:
        """Attention over all tokens."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # A norm wants its input in its weights' precision, a rotation in float32; the three must agree afterwards.
        own = self.qkv.weight.dtype
        q = rotated(at_least_float32(self.q_norm(q.to(own))), rotation).to(v.dtype)
        k = rotated(at_least_float32(self.k_norm(k.to(own))), rotation).to(v.dtype)
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1).to(v.dtype) @ v
        return self.proj(mixed.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    """silu(x W1) * (x W2), then a third matrix (arXiv 2002.05202); the first two are one."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12 = linear(width, 2 * hidden)
        self.w3 = linear(hidden, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Each token by itself."""
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


def rotated(x: Float[Tensor, "b a n e"], rotation: Float[Tensor, "2 n e"]) -> Float[Tensor, "b a n e"]:
    """Each pair of neighbouring channels turned by its angle."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(dim=-1)
    turned = torch.stack((-odd, even), dim=-1).flatten(-2)
    return x * rotation[0] + turned * rotation[1]
