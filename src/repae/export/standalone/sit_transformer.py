"""SiT (arXiv 2401.08740) and LightningDiT (arXiv 2501.01423), two diffusion transformers, as models of diffusers.

Needs torch and diffusers only.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

FREQUENCIES, MAX_PERIOD, EPS = 128, 10000.0, 1e-6


class DiffusionTransformer2DModel(ModelMixin, ConfigMixin, ABC):
    """Velocity of normalised latents at time t, where t = 0 is data and t = 1 noise, for class labels.

    Args:
        sample_size: side of the square latent.
        patch_size: side of the square of latent pixels that makes one token.
        in_channels: channels of the latent.
        num_layers: transformer blocks.
        num_attention_heads: heads of each.
        attention_head_dim: width of a head; heads times this is the width of a token.
        mlp_ratio: width of the hidden layer of the MLPs, relative to a token's; SwiGLU's is 2/3 of it.
        num_classes: labels are 0..num_classes-1.
        null_class: there is a further label, num_classes, that stands for "no class".
        qk_norm: queries and keys are normalised, per head.
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
        # Zeros, since the values come with the weights, whatever table these were trained with.
        self.register_buffer("pos_embed", torch.zeros(1, side * side, width))
        self.blocks = nn.ModuleList(
            self.block(width, num_attention_heads, mlp_ratio, qk_norm) for _ in range(num_layers)
        )
        self.final_layer = FinalLayer(width, patch_size * patch_size * in_channels, self.norm(width))

    @abstractmethod
    def block(self, width: int, heads: int, mlp_ratio: float, qk_norm: bool) -> Block:
        """One of the blocks."""

    @abstractmethod
    def norm(self, width: int) -> nn.Module:
        """What normalises tokens before the last layer."""

    def rotation(self, device: torch.device) -> Tensor | None:
        """Cosine and sine by which queries and keys turn at each token, where they do."""
        return None

    def forward(
        self, hidden_states: Tensor, timestep: Tensor, class_labels: Tensor, return_dict: bool = True
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Velocity, shaped as the latents ``[B, C, H, W]``, at times ``[B]`` in [0, 1] and for labels ``[B]``."""
        patch, side = self.config["patch_size"], self.config["sample_size"] // self.config["patch_size"]
        tokens = self.x_embedder(hidden_states) + self.pos_embed
        condition = self.t_embedder(timestep) + self.y_embedder(class_labels)
        rotation = self.rotation(hidden_states.device)
        for block in self.blocks:
            tokens = block(tokens, condition, rotation)
        grid = self.final_layer(tokens, condition).unflatten(2, (patch, patch, -1)).unflatten(1, (side, side))
        velocity = grid.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
        return Transformer2DModelOutput(sample=velocity) if return_dict else (velocity,)


class SiTTransformer2DModel(DiffusionTransformer2DModel):
    """SiT: LayerNorm, and GELU in the MLPs."""

    def block(self, width: int, heads: int, mlp_ratio: float, qk_norm: bool) -> Block:
        attn = Attention(width, heads, nn.LayerNorm if qk_norm else nn.Identity)
        return Block(width, attn, MLP(width, int(width * mlp_ratio)), self.norm)

    def norm(self, width: int) -> nn.Module:
        return nn.LayerNorm(width, eps=EPS, elementwise_affine=False)


class LightningTransformer2DModel(DiffusionTransformer2DModel):
    """LightningDiT: RMSNorm, SwiGLU in the MLPs, and queries and keys that are rotated by their place."""

    def block(self, width: int, heads: int, mlp_ratio: float, qk_norm: bool) -> Block:
        attn = Attention(width, heads, HeadNorm if qk_norm else nn.Identity)
        return Block(width, attn, SwiGLU(width, int(2 / 3 * int(width * mlp_ratio))), self.norm)

    def norm(self, width: int) -> nn.Module:
        return nn.RMSNorm(width, eps=EPS)

    def rotation(self, device: torch.device) -> Tensor:
        side = self.config["sample_size"] // self.config["patch_size"]
        return rotation_table(self.config["attention_head_dim"], side, device)


class PatchEmbedder(nn.Module):
    """Squares of latent pixels to tokens, row by row: ``[B, C, H, W]`` to ``[B, N, D]``."""

    def __init__(self, channels: int, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch_size, patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class TimeEmbedder(nn.Module):
    """Time in [0, 1], as it is and not times 1000, through 128 frequencies and an MLP: ``[B]`` to ``[B, D]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        t = at_least_float32(t)
        exponent = torch.arange(FREQUENCIES, dtype=t.dtype, device=t.device) / FREQUENCIES
        angle = t[:, None] * torch.exp(-math.log(MAX_PERIOD) * exponent)
        return self.mlp(torch.cat((angle.cos(), angle.sin()), dim=1).to(next(self.mlp.parameters()).dtype))


class LabelEmbedder(nn.Module):
    """A vector for each class, and one for "no class" where there is that: ``[B]`` to ``[B, D]``."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(rows, width)

    def forward(self, y: Tensor) -> Tensor:
        return self.embedding_table(y)


class HeadNorm(nn.RMSNorm):
    """RMSNorm in its weights' precision, which autocast does not see to as it does for LayerNorm."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class Attention(nn.Module):
    """Multi-head self-attention; with a ``rotation``, of queries and keys rotated by their place."""

    def __init__(self, width: int, heads: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = norm(width // heads)
        self.k_norm = norm(width // heads)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rotation: Tensor | None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotated(at_least_float32(q), rotation), rotated(at_least_float32(k), rotation)
        mixed = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers with a tanh-approximated GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class SwiGLU(nn.Module):
    """silu(x W1) * (x W2), then a third matrix; the first two are one."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


class Block(nn.Module):
    """Transformer block with adaLN-Zero conditioning: tokens shifted, scaled and gated by the condition."""

    def __init__(self, width: int, attn: Attention, mlp: nn.Module, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.norm1 = norm(width)
        self.attn = attn
        self.norm2 = norm(width)
        self.mlp = mlp
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, condition: Tensor, rotation: Tensor | None) -> Tensor:
        modulation = self.adaLN_modulation(condition).unsqueeze(1).chunk(6, dim=2)
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = modulation
        x = x + gate_attn * self.attn(modulate(self.norm1(x), shift_attn, scale_attn), rotation)
        return x + gate_mlp * self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp))


class FinalLayer(nn.Module):
    """Tokens ``[B, N, D]`` to patches of velocity, ``[B, N, values]`` in the layout (row, column, channel)."""

    def __init__(self, width: int, values: int, norm: nn.Module) -> None:
        super().__init__()
        self.norm_final = norm
        self.linear = nn.Linear(width, values)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(condition).unsqueeze(1).chunk(2, dim=2)
        return self.linear(modulate(self.norm_final(x), shift, scale))


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32, or in float64 where it was that already."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
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
