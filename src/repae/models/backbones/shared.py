"""What backbones share: patches, times and labels as vectors, the table of places, and tokens as latents again."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from repae.models.layers import at_least_float32, linear


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


class FinalLayer(nn.Module):
    """Normalised tokens, shifted and scaled by the condition, to patches of velocity."""

    def __init__(self, width: int, patch_size: int, channels: int, norm: nn.Module) -> None:
        super().__init__()
        self.norm_final = norm
        self.linear = linear(width, patch_size * patch_size * channels, std=0.0)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), linear(width, 2 * width, std=0.0))

    def forward(self, x: Float[Tensor, "b n d"], condition: Float[Tensor, "b d"]) -> Float[Tensor, "b n k"]:
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


def modulate(
    x: Float[Tensor, "b n d"], shift: Float[Tensor, "b 1 d"], scale: Float[Tensor, "b 1 d"]
) -> Float[Tensor, "b n d"]:
    return x * (1 + scale) + shift


def unpatchify(patches: Float[Tensor, "b n k"], patch_size: int) -> Float[Tensor, "b c h w"]:
    """Square latents of their patches, which come row by row with the layout (row, column, channel)."""
    side = math.isqrt(patches.shape[1])
    grid = patches.unflatten(2, (patch_size, patch_size, -1)).unflatten(1, (side, side))
    return grid.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
