"""SiT, the diffusion transformer that predicts velocities (arXiv 2401.08740, with DiT's blocks, arXiv 2212.09748)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from repae.config import Config, UserError, suggest
from repae.models.layers import at_least_float32, linear

_SIZES = {"XL": (28, 1152, 16), "L": (24, 1024, 16), "B": (12, 768, 12), "S": (12, 384, 6)}
"""Depth, width and heads of the published sizes."""

_PATCHES = (1, 2, 4, 8)


class SiTConfig(Config):
    """Sizes of a SiT.

    Attributes:
        input_size: side of the square latent.
        patch_size: side of the square of latent pixels that makes one token.
        in_channels: channels of the latent, and of the velocity.
        hidden_size: width of a token; a multiple of ``num_heads`` and of 4.
        mlp_ratio: width of the hidden layer of the MLPs, relative to ``hidden_size``.
        num_classes: labels are 0..num_classes-1.
        class_dropout_prob: share of labels replaced by the null label in training; above 0 there is a null label.
        qk_norm: LayerNorm of queries and keys, per head.
        fused_attn: torch's fused attention instead of explicit products.
    """

    input_size: int = Field(default=32, ge=1)
    patch_size: int = Field(default=2, ge=1)
    in_channels: int = Field(default=4, ge=1)
    hidden_size: int = Field(default=1152, ge=4)
    depth: int = Field(default=28, ge=1)
    num_heads: int = Field(default=16, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)
    num_classes: int = Field(default=1000, ge=1)
    class_dropout_prob: float = Field(default=0.1, ge=0, le=1)
    qk_norm: bool = False
    fused_attn: bool = True

    @model_validator(mode="after")
    def _sizes_fit(self) -> SiTConfig:
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

    @classmethod
    def preset(cls, name: str, **changes: Any) -> SiTConfig:
        """A published size by name, ``SiT-{S,B,L,XL}/{1,2,4,8}``, with fields changed by keyword.

        Raises:
            UserError: for an unknown name (with a suggestion) or a value that is not allowed.
        """
        names = {f"SiT-{size}/{patch}": (size, patch) for size in _SIZES for patch in _PATCHES}
        if name not in names:
            raise UserError(
                f"{name!r} is not a SiT preset; allowed: SiT-{{{','.join(_SIZES)}}}/{{{','.join(map(str, _PATCHES))}}}"
                f"{suggest(name, names)}"
            )
        size, patch = names[name]
        depth, width, heads = _SIZES[size]
        fields: dict[str, Any] = {"patch_size": patch, "depth": depth, "hidden_size": width, "num_heads": heads}
        return cls(**(fields | changes))

    @property
    def tokens(self) -> int:
        """Number of tokens of one latent."""
        return (self.input_size // self.patch_size) ** 2

    @property
    def null_label(self) -> int | None:
        """The label that stands for "no class", or None when the model was never trained without a class."""
        return self.num_classes if self.class_dropout_prob > 0 else None


class SiT(nn.Module):
    """Velocity field v(x_t, t, y) of normalised latents; t = 0 is data, t = 1 is noise.

    ``embed``, ``run`` and ``final`` are its three parts, for whoever needs the tokens between two blocks. Initially
    every block is the identity and the velocity is zero (DiT's adaLN-Zero).

    The position table is a buffer: it never trains. It is saved nevertheless, because published checkpoints of the
    reference hold tables that were trained by accident and must keep their values.
    """

    pos_embed: Tensor

    def __init__(self, config: SiTConfig) -> None:
        super().__init__()
        self.config = config
        c, width = config, config.hidden_size
        self.x_embedder = PatchEmbedder(c.in_channels, c.patch_size, width)
        self.t_embedder = TimeEmbedder(width)
        self.y_embedder = LabelEmbedder(c.num_classes, width, has_null=c.null_label is not None)
        self.register_buffer("pos_embed", position_table(width, c.input_size // c.patch_size))
        self.blocks = nn.ModuleList(
            Block(width, c.num_heads, int(width * c.mlp_ratio), qk_norm=c.qk_norm, fused=c.fused_attn)
            for _ in range(c.depth)
        )
        self.final_layer = FinalLayer(width, c.patch_size, c.in_channels)

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        t: Float[Tensor, " b"],
        y: Int[Tensor, " b"],
        drop: Bool[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Velocity at the normalised latents ``x`` of times ``t`` in [0, 1] and labels ``y`` in 0..num_classes.

        ``drop`` says whose labels are replaced by the null label, in training and evaluation alike. Without it, they
        are drawn with ``class_dropout_prob`` in train mode and none is replaced in eval mode.

        Raises:
            UserError: the latents have another shape than the configuration says.
        """
        tokens, condition = self.embed(x, t, y, drop)
        return self.final(self.run(tokens, condition), condition)

    def features(
        self, x: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], y: Int[Tensor, " b"], depth: int
    ) -> Float[Tensor, "b n d"]:
        """Tokens after the first ``depth`` blocks."""
        if not 0 <= depth <= len(self.blocks):
            raise UserError(
                f"features after block {depth} were asked for; allowed: 0 to {len(self.blocks)}, the model's depth"
            )
        tokens, condition = self.embed(x, t, y)
        return self.run(tokens, condition, stop=depth)

    def embed(
        self,
        x: Float[Tensor, "b c h w"],
        t: Float[Tensor, " b"],
        y: Int[Tensor, " b"],
        drop: Bool[Tensor, " b"] | None = None,
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b d"]]:
        """Tokens in row-major order, and the condition that every block sees: embedded time plus embedded label."""
        expected = (self.config.in_channels, self.config.input_size, self.config.input_size)
        if tuple(x.shape[1:]) != expected:
            raise UserError(f"this SiT takes latents of shape {expected}, not {tuple(x.shape[1:])}")
        if drop is None and self.training and self.config.null_label is not None:
            drop = torch.rand(y.shape, device=y.device) < self.config.class_dropout_prob
        if drop is not None:
            y = torch.where(drop, self.config.num_classes, y)
        return self.x_embedder(x) + self.pos_embed, self.t_embedder(t) + self.y_embedder(y)

    def run(
        self, tokens: Float[Tensor, "b n d"], condition: Float[Tensor, "b d"], start: int = 0, stop: int | None = None
    ) -> Float[Tensor, "b n d"]:
        """Tokens after blocks number ``start`` + 1 to ``stop`` (the last one by default)."""
        for block in self.blocks[start:stop]:
            tokens = block(tokens, condition)
        return tokens

    def final(self, tokens: Float[Tensor, "b n d"], condition: Float[Tensor, "b d"]) -> Float[Tensor, "b c h w"]:
        """Velocity of the latents that the tokens make up."""
        patches = self.final_layer(tokens, condition)
        p, side = self.config.patch_size, self.config.input_size // self.config.patch_size
        grid = patches.unflatten(2, (p, p, -1)).unflatten(1, (side, side))
        return grid.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


class PatchEmbedder(nn.Module):
    """Squares of latent pixels to tokens, row by row."""

    def __init__(self, channels: int, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch_size, patch_size)
        nn.init.xavier_uniform_(self.proj.weight.flatten(1))
        self.proj.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """One token for each patch."""
        return self.proj(x).flatten(2).transpose(1, 2)


class TimeEmbedder(nn.Module):
    """Time in [0, 1], as it is and not times 1000, through 128 frequencies and an MLP."""

    frequencies = 128
    max_period = 10000.0

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            linear(2 * self.frequencies, width, std=0.02), nn.SiLU(), linear(width, width, std=0.02)
        )

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """Embedding of each time; the sinusoids are computed in float32 or better."""
        t = at_least_float32(t)
        exponent = torch.arange(self.frequencies, dtype=t.dtype, device=t.device) / self.frequencies
        angle = t[:, None] * torch.exp(-math.log(self.max_period) * exponent)
        sinusoids = torch.cat((angle.cos(), angle.sin()), dim=1)
        return self.mlp(sinusoids.to(next(self.mlp.parameters()).dtype))


class LabelEmbedder(nn.Module):
    """A vector for each class, and a last one for "no class" where the model has that."""

    def __init__(self, num_classes: int, width: int, *, has_null: bool) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + has_null, width)
        nn.init.normal_(self.embedding_table.weight, std=0.02)

    def forward(self, y: Int[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """Vector of each label."""
        return self.embedding_table(y)


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
        x = x + gate_attn * self.attn(_modulate(self.norm1(x), shift_attn, scale_attn))
        return x + gate_mlp * self.mlp(_modulate(self.norm2(x), shift_mlp, scale_mlp))


class FinalLayer(nn.Module):
    """Tokens to patches of velocity."""

    def __init__(self, width: int, patch_size: int, channels: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.linear = linear(width, patch_size * patch_size * channels, std=0.0)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), linear(width, 2 * width, std=0.0))

    def forward(self, x: Float[Tensor, "b n d"], condition: Float[Tensor, "b d"]) -> Float[Tensor, "b n k"]:
        """Patches with the layout (row, column, channel)."""
        shift, scale = self.adaLN_modulation(condition).unsqueeze(1).chunk(2, dim=2)
        return self.linear(_modulate(self.norm_final(x), shift, scale))


def position_table(width: int, side: int) -> Float[Tensor, "1 n d"]:
    """Fixed sine-cosine table of a square grid: the first half of the channels is the column, the second the row.

    Each half holds sines, then cosines, of ``width`` / 4 frequencies from 1 down to nearly 1/10000 (MAE, arXiv
    2111.06377).
    """
    # Computed on the CPU, since not every device has float64.
    frequency = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64, device="cpu") / (width // 4))
    angle = torch.arange(side, dtype=torch.float64, device="cpu")[:, None] * frequency
    line = torch.cat((angle.sin(), angle.cos()), dim=1)
    column, row = line.repeat(side, 1), line.repeat_interleave(side, dim=0)
    return torch.cat((column, row), dim=1).float()[None].to(torch.get_default_device())


def _modulate(
    x: Float[Tensor, "b n d"], shift: Float[Tensor, "b 1 d"], scale: Float[Tensor, "b 1 d"]
) -> Float[Tensor, "b n d"]:
    return x * (1 + scale) + shift


def _nearest_divisor(number: int, to: int) -> int:
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: abs(d - to))
