"""The tiny autoencoder of factor 4, as a model of diffusers. Needs torch and diffusers only."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

GROUPS = 8


class TinyAutoencoder(ModelMixin, ConfigMixin):
    """Residual blocks at a half and a quarter of the resolution, with the interface of diffusers' `AutoencoderKL`.

    Args:
        in_channels: channels of the images, which are in [-1, 1].
        latent_channels: channels of the latent, as it leaves ``encode``: not normalised.
        base_channels: width at half resolution.
        sample_size: side of the images that it was trained on.
        scaling_factor: 1; the normalisation is in the two statistics.
        latents_mean, latents_std: per channel, normalised latent = (latent - mean) / std.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        latent_channels: int = 4,
        base_channels: int = 16,
        sample_size: int = 32,
        scaling_factor: float = 1.0,
        latents_mean: list[float] | None = None,
        latents_std: list[float] | None = None,
    ) -> None:
        super().__init__()
        half, quarter = base_channels, 2 * base_channels
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            conv(4 * in_channels, half),
            ResidualBlock(half),
            conv(half, quarter, stride=2),
            ResidualBlock(quarter),
            ResidualBlock(quarter),
            *head(quarter, 2 * latent_channels),
        )
        self.decoder = nn.Sequential(
            conv(latent_channels, quarter),
            ResidualBlock(quarter),
            ResidualBlock(quarter),
            nn.Upsample(scale_factor=2, mode="nearest"),
            conv(quarter, half),
            ResidualBlock(half),
            nn.GroupNorm(GROUPS, half),
            nn.SiLU(),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            conv(half, in_channels),
        )

    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[DiagonalGaussianDistribution]:
        """Posterior of images ``[B, C, H, W]`` in [-1, 1], a quarter of their side."""
        posterior = DiagonalGaussianDistribution(self.encoder(x))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """Images, about -1..1, of latents that are not normalised."""
        sample = self.decoder(z)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def forward(
        self, sample: Tensor, sample_posterior: bool = False, generator: torch.Generator | None = None
    ) -> DecoderOutput | tuple[Tensor]:
        posterior = self.encode(sample, return_dict=False)[0]
        return self.decode(posterior.sample(generator) if sample_posterior else posterior.mode())


class ResidualBlock(nn.Module):
    """Two times group norm, SiLU and a 3x3 convolution, beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*head(channels, channels), *head(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def head(channels_in: int, channels_out: int) -> list[nn.Module]:
    return [nn.GroupNorm(GROUPS, channels_in), nn.SiLU(), conv(channels_in, channels_out)]


def conv(channels_in: int, channels_out: int, *, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the side, or halves it."""
    return nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1)
