"""What every autoencoder answers, whatever it is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from repae.config import UserError
from repae.models.layers import at_least_float32

_LOGVAR_RANGE = (-30.0, 20.0)


class AutoencoderOutput(NamedTuple):
    """One pass through a variational autoencoder.

    mean, logvar (of the posterior) and z, a sample of it, are ``[B, k, H/f, W/f]`` in float32 or better, z as it is and
    not normalised; reconstruction is ``[B, C, H, W]``, about -1..1.
    """

    mean: Float[Tensor, "b k m n"]
    logvar: Float[Tensor, "b k m n"]
    z: Float[Tensor, "b k m n"]
    reconstruction: Float[Tensor, "b c h w"]


class Autoencoder(nn.Module, ABC):
    """A variational autoencoder of images in [-1, 1] whose posterior is a diagonal Gaussian.

    An implementation says how images become ``moments`` (means, then log-variances) and latents become images.

    Attributes:
        latent_channels: channels k of the latent.
        factor: side of an image divided by the side of its latent.
        image_channels: channels C of the images.
    """

    def __init__(self, *, latent_channels: int, factor: int, image_channels: int) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        self.factor = factor
        self.image_channels = image_channels

    def forward(self, images: Float[Tensor, "b c h w"], noise: Float[Tensor, "b k m n"]) -> AutoencoderOutput:
        """Encode, sample z = mean + std noise, decode: all in one pass, so that data parallelism sees it.

        ``noise`` is standard normal, in the shape of the latent.
        """
        mean, logvar = self.encode(images)
        z = mean + torch.exp(0.5 * logvar) * noise
        return AutoencoderOutput(mean, logvar, z, self.decode(z))

    def encode(self, images: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b k m n"], Float[Tensor, "b k m n"]]:
        """Mean and log-variance, the latter within -30..20, of each image's posterior.

        Raises:
            UserError: images with other channels than ``image_channels``, or a side that ``factor`` does not divide.
        """
        channels, height, width = images.shape[1:]
        if channels != self.image_channels:
            raise UserError(f"this autoencoder takes images of {self.image_channels} channels, not {channels}")
        if height % self.factor or width % self.factor:
            raise UserError(
                f"images of {height}x{width} pixels cannot be encoded: each side must be a multiple of {self.factor}"
            )
        mean, logvar = at_least_float32(self.moments(images)).chunk(2, dim=1)
        return mean, logvar.clamp(*_LOGVAR_RANGE)

    @abstractmethod
    def moments(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b kk m n"]:
        """Means and log-variances of the posterior, along the channels."""

    @abstractmethod
    def decode(self, z: Float[Tensor, "b k m n"]) -> Float[Tensor, "b c h w"]:
        """Images, about -1..1, of raw latents."""

    def compile_parts(self) -> list[nn.Module]:
        """The parts that are compiled one by one."""
        return [self]
