"""LightningDiT (arXiv 2501.01423), as a model of diffusers. Needs torch and diffusers only."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

FREQUENCIES, MAX_PERIOD, EPS = 128, 10000.0, 1e-6


class LightningTransformer2DModel(ModelMixin, ConfigMixin):
    """Velocity of normalised latents at time t, where t = 0 is data and t = 1 noise, for class labels.

    Args:
        sample_size: side of the square latent.
        patch_size: side of the square of latent pixels that makes one token.
        in_channels: channels of the latent.
        num_layers: transformer blocks.
        num_attention_heads: heads of each.
        attention_head_dim: width of a head; heads times this is the width of a token.
        mlp_ratio: 3/2 of the width of SwiGLU's hidden layer, relative to a token's.
        num_classes: labels are 0..num_classes-1.
        null_class: there is a further label, num_classes, that stands for "no class".
        qk_norm: RMSNorm of queries and keys, per head.
        vae_digest: first digits of the hash of the autoencoder's weights whose latents this model was trained on.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 16,
        patch_size: int = 1,
        in_channels: int = 32,
        num_layers: int = 28,
        num_attention_heads: int = 16,
        attention_head_dim: int = 72,
        mlp_ratio: float = 4.0,
        num_classes: int = 1000,
        null_class: bool = True,
        qk_norm: bool = False,
        vae_digest: str | None = None,
    ) -> None:
        super().__init__()
        width, side = num_attention_heads * attention_head_dim, sample_size // patch_size
        self.x_embedder = PatchEmbedder(in_channels, patch_size, width)
        self.t_embedder = TimeEmbedder(width)
        self.y_embedder = LabelEmbedder(num_classes + null_class, width)
        self.register_buffer("pos_embed", torch.zeros(1, side * side, width))
        hidden = int(2 / 3 * int(width * mlp_ratio))
        self.blocks = nn.ModuleList(
            LightningBlock(width, num_attention_heads, hidden, qk_norm) for _ in range(num_layers)
        )
        self.final_layer = FinalLayer(width, patch_size * patch_size * in_channels)

    def forward(
        self, hidden_states: Tensor, timestep: Tensor, class_labels: Tensor, return_dict: bool = True
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Velocity, shaped as the latents ``[B, C, H, W]``, at times ``[B]`` in [0, 1] and for labels ``[B]``."""
        patch, side = self.config["patch_size"], self.config["sample_size"] // self.config["patch_size"]
        tokens = self.x_embedder(hidden_states) + self.pos_embed
        condition = self.t_embedder(timestep) + self.y_embedder(class_labels)
        rotation = rotation_table(self.config["attention_head_dim"], side, hidden_states.device)
        for block in self.blocks:
            tokens = block(tokens, condition, rotation)
        grid = self.final_layer(tokens, condition).unflatten(2, (patch, patch, -1)).unflatten(1, (side, side))
        velocity = grid.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
        return Transformer2DModelOutput(sample=velocity) if return_dict else (velocity,)


class PatchEmbedder(nn.Module):
    """Squares of latent pixels to tokens, row by row."""

    def __init__(self, channels: int, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch_size, patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, N, D]``."""
        return self.proj(x).flatten(2).transpose(1, 2)


class TimeEmbedder(nn.Module):
    """Time in [0, 1], as it is and not times 1000, through 128 frequencies and an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """``[B]`` to ``[B, D]``; the sinusoids are computed in float32 or better."""
        t = at_least_float32(t)
        exponent = torch.arange(FREQUENCIES, dtype=t.dtype, device=t.device) / FREQUENCIES
        angle = t[:, None] * torch.exp(-math.log(MAX_PERIOD) * exponent)
        return self.mlp(torch.cat((angle.cos(), angle.sin()), dim=1).to(next(self.mlp.parameters()).dtype))


class LabelEmbedder(nn.Module):
    """A vector for each class, and one for "no class" where there is that."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(rows, width)

    def forward(self, y: Tensor) -> Tensor:
        """``[B]`` to ``[B, D]``."""
        return self.embedding_table(y)


class RotaryAttention(nn.Module):
    """Multi-head self-attention whose queries and keys are rotated by their place."""

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.RMSNorm(width // heads, eps=EPS) if qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(width // heads, eps=EPS) if qk_norm else nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        """Attention over all tokens."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        own = self.qkv.weight.dtype
        q = rotated(at_least_float32(self.q_norm(q.to(own))), rotation).to(v.dtype)
        k = rotated(at_least_float32(self.k_norm(k.to(own))), rotation).to(v.dtype)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    """silu(x W1) * (x W2), then a third matrix; the first two are one."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Each token by itself."""
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


class LightningBlock(nn.Module):
    """Transformer block with adaLN-Zero conditioning."""

    def __init__(self, width: int, heads: int, hidden: int, qk_norm: bool) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(width, eps=EPS)
        self.attn = RotaryAttention(width, heads, qk_norm)
        self.norm2 = nn.RMSNorm(width, eps=EPS)
        self.mlp = SwiGLU(width, hidden)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, condition: Tensor, rotation: Tensor) -> Tensor:
        """Tokens after attention and MLP, each shifted, scaled and gated by the condition."""
        modulation = self.adaLN_modulation(condition).unsqueeze(1).chunk(6, dim=2)
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = modulation
        x = x + gate_attn * self.attn(modulate(self.norm1(x), shift_attn, scale_attn), rotation)
        return x + gate_mlp * self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp))


class FinalLayer(nn.Module):
    """Tokens to patches of velocity, in the layout (row, column, channel)."""

    def __init__(self, width: int, values: int) -> None:
        super().__init__()
        self.norm_final = nn.RMSNorm(width, eps=EPS)
        self.linear = nn.Linear(width, values)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """``[B, N, D]`` to ``[B, N, values]``."""
        shift, scale = self.adaLN_modulation(condition).unsqueeze(1).chunk(2, dim=2)
        return self.linear(modulate(self.norm_final(x), shift, scale))


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32, or in float64 where it was that already."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``x (1 + scale) + shift``."""
    return x * (1 + scale) + shift


def rotation_table(head: int, side: int, device: torch.device) -> Tensor:
    """Cosine and sine ``[2, N, head]``: the first half of the channels turns by the row, the second by the column."""
    half = head // 2
    frequency = MAX_PERIOD ** -(torch.arange(0, half, 2, dtype=torch.float64, device="cpu") / half)
    angle = torch.arange(side, dtype=torch.float64, device="cpu")[:, None] * frequency.repeat_interleave(2)
    both = torch.cat((angle.repeat_interleave(side, dim=0), angle.repeat(side, 1)), dim=1)
    return torch.stack((both.cos(), both.sin())).float().to(device)


def rotated(x: Tensor, rotation: Tensor) -> Tensor:
    """Each pair of neighbouring channels turned by its angle."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(dim=-1)
    return x * rotation[0] + torch.stack((-odd, even), dim=-1).flatten(-2) * rotation[1]
