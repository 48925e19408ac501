"""SiT, the diffusion transformer (arXiv 2401.08740), as a model of diffusers. Needs torch and diffusers only."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

FREQUENCIES, MAX_PERIOD = 128, 10000.0


class SiTTransformer2DModel(ModelMixin, ConfigMixin):
    """Velocity of normalised latents at time t, where t = 0 is data and t = 1 noise, for class labels.

    Args:
        sample_size: side of the square latent.
        patch_size: side of the square of latent pixels that makes one token.
        in_channels: channels of the latent.
        num_layers: transformer blocks.
        num_attention_heads: heads of each.
        attention_head_dim: width of a head; heads times this is the width of a token.
        mlp_ratio: width of the hidden layer of the MLPs, relative to a token's.
        num_classes: labels are 0..num_classes-1.
        null_class: there is a further label, num_classes, that stands for "no class".
        qk_norm: LayerNorm of queries and keys, per head.
        vae_digest: first digits of the hash of the autoencoder's weights whose latents this model was trained on.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        patch_size: int = 2,
        in_channels: int = 4,
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
        self.blocks = nn.ModuleList(
            Block(width, num_attention_heads, int(width * mlp_ratio), qk_norm) for _ in range(num_layers)
        )
        self.final_layer = FinalLayer(width, patch_size * patch_size * in_channels)

    def forward(
        self, hidden_states: Tensor, timestep: Tensor, class_labels: Tensor, return_dict: bool = True
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Velocity, shaped as the latents ``[B, C, H, W]``, at times ``[B]`` in [0, 1] and for labels ``[B]``."""
        patch, side = self.config["patch_size"], self.config["sample_size"] // self.config["patch_size"]
        tokens = self.x_embedder(hidden_states) + self.pos_embed
        condition = self.t_embedder(timestep) + self.y_embedder(class_labels)
        for block in self.blocks:
            tokens = block(tokens, condition)
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
        t = t.to(torch.promote_types(t.dtype, torch.float32))
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


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attention over all tokens."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype), v)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers with a tanh-approximated GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Each token by itself."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    """Transformer block with adaLN-Zero conditioning."""

    def __init__(self, width: int, heads: int, mlp_width: int, qk_norm: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attn = Attention(width, heads, qk_norm)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = MLP(width, mlp_width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens after attention and MLP, each shifted, scaled and gated by the condition."""
        modulation = self.adaLN_modulation(condition).unsqueeze(1).chunk(6, dim=2)
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = modulation
        x = x + gate_attn * self.attn(modulate(self.norm1(x), shift_attn, scale_attn))
        return x + gate_mlp * self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp))


class FinalLayer(nn.Module):
    """Tokens to patches of velocity, in the layout (row, column, channel)."""

    def __init__(self, width: int, values: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.linear = nn.Linear(width, values)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """``[B, N, D]`` to ``[B, N, values]``."""
        shift, scale = self.adaLN_modulation(condition).unsqueeze(1).chunk(2, dim=2)
        return self.linear(modulate(self.norm_final(x), shift, scale))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``x (1 + scale) + shift``."""
    return x * (1 + scale) + shift
