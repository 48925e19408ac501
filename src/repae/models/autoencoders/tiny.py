"""A small autoencoder of factor 4 for runs of minutes on a CPU."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from repae.config import Config
from repae.models.autoencoders.base import VariationalAutoencoder

_GROUPS = 8


class TinyConfig(Config):
    """Sizes of a tiny autoencoder: about 98,000 parameters by default.

    Attributes:
        latent_channels: channels of the latent.
        base_channels: width at half resolution, a multiple of 8; twice as wide at a quarter of it.
    """

    kind: Literal["tiny"] = "tiny"
    latent_channels: int = Field(default=4, ge=1)
    base_channels: int = Field(default=16, ge=_GROUPS, multiple_of=_GROUPS)

    @property
    def factor(self) -> int:
        return 4

    def build(self, image_channels: int = 3) -> TinyAutoencoder:
        return TinyAutoencoder(self, image_channels)


class TinyAutoencoder(VariationalAutoencoder):
    """Residual blocks at a half and a quarter of the resolution; nothing is computed at full resolution but the ends.

    The encoder begins with a pixel-unshuffle. The decoder ends with an interpolation, not with a pixel-shuffle: four
    filters that each paint their own phase of the pixel grid let a discriminator teach them a lattice, whereas what is
    interpolated from a constant stays constant.
    """

    def __init__(self, config: TinyConfig, image_channels: int = 3) -> None:
        super().__init__(latent_channels=config.latent_channels, factor=config.factor, image_channels=image_channels)
        self.config = config
        half, quarter = config.base_channels, 2 * config.base_channels
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            _conv(4 * image_channels, half),
            ResidualBlock(half),
            _conv(half, quarter, stride=2),
            ResidualBlock(quarter),
            ResidualBlock(quarter),
            *_head(quarter, 2 * config.latent_channels),
        )
        self.decoder = nn.Sequential(
            _conv(config.latent_channels, quarter),
            ResidualBlock(quarter),
            ResidualBlock(quarter),
            nn.Upsample(scale_factor=2, mode="nearest"),
            _conv(quarter, half),
            ResidualBlock(half),
            nn.GroupNorm(_GROUPS, half),
            nn.SiLU(),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            _conv(half, image_channels),
        )

    def moments(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b kk m n"]:
        return self.encoder(images)

    def decode(self, z: Float[Tensor, "b k m n"]) -> Float[Tensor, "b c h w"]:
        return self.decoder(z)

    def repeated_parts(self) -> list[nn.Module]:
        return [self.encoder, self.decoder]


class ResidualBlock(nn.Module):
    """Two times group norm, SiLU and a 3x3 convolution, beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_head(channels, channels), *_head(channels, channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.body(x)


def _head(channels_in: int, channels_out: int) -> list[nn.Module]:
    return [nn.GroupNorm(_GROUPS, channels_in), nn.SiLU(), _conv(channels_in, channels_out)]


def _conv(channels_in: int, channels_out: int, *, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1)
