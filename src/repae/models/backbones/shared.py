"""DiT's stack, which the backbones here have in common, and what it is made of (arXiv 2212.09748)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from repae.models.backbones.base import Backbone, BackboneConfig, Condition, Dropped, Labels, Latents, Times, Tokens
from repae.models.layers import at_least_float32, linear


class DiTBackbone(Backbone):
    """Patches in, blocks that see the condition, patches out; a backbone says what its blocks and norms are.

    Initially every block is the identity and the velocity is zero (adaLN-Zero).

    The position table is a buffer: it never trains. It is saved nevertheless, because published checkpoints of the
    reference hold tables that were trained by accident and must keep their values.

    Args:
        config: the sizes.
        rotation: cosine and sine by which queries and keys are turned at each token, if they are. A function of the
            sizes alone, hence in no checkpoint.
    """

    pos_embed: Tensor
    rotation: Tensor | None

    def __init__(self, config: BackboneConfig, rotation: Float[Tensor, "2 n e"] | None = None) -> None:
        super().__init__(config)
        c, width = config, config.hidden_size
        self.x_embedder = PatchEmbedder(c.in_channels, c.patch_size, width)
        self.t_embedder = TimeEmbedder(width)
        self.y_embedder = LabelEmbedder(c.num_classes, width, has_null=c.null_label is not None)
        self.register_buffer("pos_embed", position_table(width, c.input_size // c.patch_size))
        self.register_buffer("rotation", rotation, persistent=False)
        self.blocks = nn.ModuleList(self.block() for _ in range(c.depth))
        self.final_layer = FinalLayer(width, c.patch_size, c.in_channels, self.norm(width))

    @abstractmethod
    def block(self) -> Block:
        """A new block."""

    @abstractmethod
    def norm(self, width: int) -> nn.Module:
        """A new norm of tokens."""

    def embed(self, x: Latents, t: Times, y: Labels, drop: Dropped | None = None) -> tuple[Tokens, Condition]:
        self._check(x)
        condition = self.t_embedder(t) + self.y_embedder(self._labels(y, drop))
        return self.x_embedder(x) + self.pos_embed, condition

    def run(self, tokens: Tokens, condition: Condition, start: int = 0, stop: int | None = None) -> Tokens:
        for block in self.blocks[start:stop]:
            tokens = block(tokens, condition, self.rotation)
        return tokens

    def final(self, tokens: Tokens, condition: Condition) -> Latents:
        return unpatchify(self.final_layer(tokens, condition), self.config.patch_size)

    def repeated_parts(self) -> list[nn.Module]:
        return list(self.blocks)


class PatchEmbedder(nn.Module):
    """Squares of latent pixels to tokens, row by row."""

    def __init__(self, channels: int, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch_size, patch_size)
        # As the linear layer on patches that it is: a convolution's fan-out would count p * p times as much.
        nn.init.xavier_uniform_(self.proj.weight.flatten(1))
        self.proj.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Latents) -> Tokens:
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

    def forward(self, t: Times) -> Condition:
        """Embedding of each time; the sinusoids are computed in float32 or better."""
        t = at_least_float32(t)
        exponent = torch.arange(self.frequencies, dtype=t.dtype, device=t.device) / self.frequencies
        # Models of discrete time feed 0 to 1000 here; the published SiT weights were trained on t itself.
        angle = t[:, None] * torch.exp(-math.log(self.max_period) * exponent)
        # Cosines first, as the published weights expect; the position table has its sines first.
        sinusoids = torch.cat((angle.cos(), angle.sin()), dim=1)
        return self.mlp(sinusoids.to(next(self.mlp.parameters()).dtype))


class LabelEmbedder(nn.Module):
    """A vector for each class, and a last one for "no class" where the model has that."""

    def __init__(self, num_classes: int, width: int, *, has_null: bool) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + has_null, width)
        nn.init.normal_(self.embedding_table.weight, std=0.02)

    def forward(self, y: Labels) -> Condition:
        return self.embedding_table(y)


class Attention(nn.Module):
    """Multi-head self-attention; with a rotation, of queries and keys turned by their place (arXiv 2104.09864).

    ``norm`` makes the norm of a head's queries and that of its keys.
    """

    def __init__(self, width: int, heads: int, norm: Callable[[int], nn.Module], *, fused: bool) -> None:
        super().__init__()
        self.heads = heads
        self.fused = fused
        self.qkv = linear(width, 3 * width)
        self.q_norm = norm(width // heads)
        self.k_norm = norm(width // heads)
        self.proj = linear(width, width)

    def forward(self, x: Tokens, rotation: Float[Tensor, "2 n e"] | None = None) -> Tokens:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotated(at_least_float32(q), rotation), rotated(at_least_float32(k), rotation)
        # A norm under autocast answers in float32, and so does a rotation; the three must agree.
        q, k = q.to(v.dtype), k.to(v.dtype)
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            # Scaled before the product, which could overflow in half precision otherwise.
            mixed = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1).to(v.dtype) @ v
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Transformer block with adaLN-Zero conditioning (DiT, Sec. 3.2), of a given attention and MLP."""

    def __init__(self, width: int, attention: Attention, mlp: nn.Module, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.norm1 = norm(width)
        self.attn = attention
        self.norm2 = norm(width)
        self.mlp = mlp
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), linear(width, 6 * width, std=0.0))

    def forward(self, x: Tokens, condition: Condition, rotation: Float[Tensor, "2 n e"] | None = None) -> Tokens:
        """Tokens after attention and MLP, each shifted, scaled and gated by the condition."""
        modulation = self.adaLN_modulation(condition).unsqueeze(1).chunk(6, dim=2)
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = modulation
        x = x + gate_attn * self.attn(modulate(self.norm1(x), shift_attn, scale_attn), rotation)
        return x + gate_mlp * self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp))


class FinalLayer(nn.Module):
    """Normalised tokens, shifted and scaled by the condition, to patches of velocity."""

    def __init__(self, width: int, patch_size: int, channels: int, norm: nn.Module) -> None:
        super().__init__()
        self.norm_final = norm
        self.linear = linear(width, patch_size * patch_size * channels, std=0.0)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), linear(width, 2 * width, std=0.0))

    def forward(self, x: Tokens, condition: Condition) -> Float[Tensor, "b n k"]:
        """Patches with the layout (row, column, channel)."""
        shift, scale = self.adaLN_modulation(condition).unsqueeze(1).chunk(2, dim=2)
        return self.linear(modulate(self.norm_final(x), shift, scale))


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


def modulate(x: Tokens, shift: Float[Tensor, "b 1 d"], scale: Float[Tensor, "b 1 d"]) -> Tokens:
    # 1 + scale, so that a modulation of zeros leaves the tokens as they are.
    return x * (1 + scale) + shift


def rotated(x: Float[Tensor, "b a n e"], rotation: Float[Tensor, "2 n e"]) -> Float[Tensor, "b a n e"]:
    """Each pair of neighbouring channels turned by its angle."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(dim=-1)
    turned = torch.stack((-odd, even), dim=-1).flatten(-2)
    return x * rotation[0] + turned * rotation[1]


def unpatchify(patches: Float[Tensor, "b n k"], patch_size: int) -> Float[Tensor, "b c h w"]:
    """Square latents of their patches, which come row by row with the layout (row, column, channel)."""
    side = math.isqrt(patches.shape[1])
    grid = patches.unflatten(2, (patch_size, patch_size, -1)).unflatten(1, (side, side))
    return grid.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
