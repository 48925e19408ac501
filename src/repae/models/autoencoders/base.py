"""What every autoencoder answers, whatever it is made of."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from repae.config import UserError
from repae.models.layers import at_least_float32
from repae.runtime.parallel import Stacked

# Latent diffusion's range: an untrained encoder may ask for deviations that overflow.
_LOGVAR_RANGE = (-30.0, 20.0)

Moments = tuple[Float[Tensor, "b k m n"], Float[Tensor, "b k m n"]]
"""Mean and log-variance of the posterior."""

Statistics = tuple[Float[Tensor, " k"], Float[Tensor, " k"]]
"""Mean and standard deviation of each latent channel."""


class AutoencoderOutput(NamedTuple):
    """One pass through an autoencoder.

    mean and z are ``[B, k, H/f, W/f]`` in float32 or better, z as it is and not normalised; reconstruction is
    ``[B, C, H, W]``, about -1..1. What bounds the latent is there or not: ``logvar`` belongs to the posterior of which
    z is a sample, and is None where z is the mean itself; ``codes``, in the shape of z, are the codebook's vectors that
    the decoder saw in its place, and None where nothing is quantised.
    """

    mean: Float[Tensor, "b k m n"]
    logvar: Float[Tensor, "b k m n"] | None
    z: Float[Tensor, "b k m n"]
    reconstruction: Float[Tensor, "b c h w"]
    codes: Float[Tensor, "b k m n"] | None = None


class Autoencoder(Stacked):
    """An autoencoder of images in [-1, 1].

    Its latents are raw: nothing in it scales or shifts them, whatever constants were published with it. Normalising
    them is the business of `repae.models.latent_norm.LatentNorm` alone, which may start from `published_statistics`.

    Attributes:
        latent_channels: channels k of the latent.
        factor: side of an image divided by the side of its latent.
        image_channels: channels C of the images.
        trainable: False for one that is only ever used as it is.
    """

    trainable = True

    def __init__(self, *, latent_channels: int, factor: int, image_channels: int) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        self.factor = factor
        self.image_channels = image_channels

    @abstractmethod
    def forward(self, images: Float[Tensor, "b c h w"], noise: Float[Tensor, "b k m n"]) -> AutoencoderOutput:
        """Encode, sample z, decode: all in one pass, so that data parallelism sees it.

        ``noise`` is standard normal, in the shape of the latent; a latent without a spread leaves it unused.
        """

    @abstractmethod
    def encode(self, images: Float[Tensor, "b c h w"]) -> Moments:
        """Mean and log-variance of each image's posterior.

        The latter is minus infinity where there is no spread: a standard deviation of exactly zero, so that sampling
        and statistics need no case of their own.

        Raises:
            UserError: images with other channels than ``image_channels``, or a side that ``factor`` does not divide.
        """

    @abstractmethod
    def decode(self, z: Float[Tensor, "b k m n"]) -> Float[Tensor, "b c h w"]:
        """Images, about -1..1, of raw latents."""

    def published_statistics(self) -> Statistics | None:
        """Mean and standard deviation by which its authors normalise its latents, where they published them."""
        return None

    def _check(self, images: Float[Tensor, "b c h w"]) -> None:
        channels, height, width = images.shape[1:]
        if channels != self.image_channels:
            raise UserError(
                f"this autoencoder takes images of {self.image_channels} channels, these have {channels}; "
                "give such images, or choose another vae"
            )
        if height % self.factor or width % self.factor:
            raise UserError(
                f"images of {height}x{width} pixels cannot be encoded: each side must be a multiple of {self.factor}; "
                "resize or crop them (data.resolution)"
            )


class VariationalAutoencoder(Autoencoder):
    """An autoencoder whose posterior is a diagonal Gaussian (VAE, arXiv 1312.6114).

    An implementation says how images become ``moments`` (means, then log-variances) and latents become images.
    """

    def forward(self, images: Float[Tensor, "b c h w"], noise: Float[Tensor, "b k m n"]) -> AutoencoderOutput:
        mean, logvar = self.encode(images)
        z = mean + torch.exp(0.5 * logvar) * noise
        return AutoencoderOutput(mean, logvar, z, self.decode(z))

    def encode(self, images: Float[Tensor, "b c h w"]) -> Moments:
        """Mean and log-variance, the latter within -30..20, of each image's posterior."""
        self._check(images)
        mean, logvar = at_least_float32(self.moments(images)).chunk(2, dim=1)
        return mean, logvar.clamp(*_LOGVAR_RANGE)

    @abstractmethod
    def moments(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b kk m n"]:
        """Means and log-variances of the posterior, along the channels."""


class DeterministicAutoencoder(Autoencoder):
    """An autoencoder that gives each image one latent. An implementation says how, and how to get back."""

    def forward(self, images: Float[Tensor, "b c h w"], noise: Float[Tensor, "b k m n"]) -> AutoencoderOutput:
        z, _ = self.encode(images)
        return AutoencoderOutput(z, None, z, self.decode(z))

    def encode(self, images: Float[Tensor, "b c h w"]) -> Moments:
        """Each image's latent, and minus infinity: the log-variance of what has no spread."""
        self._check(images)
        z = at_least_float32(self.latents(images))
        return z, torch.full_like(z, -torch.inf)

    @abstractmethod
    def latents(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k m n"]:
        """The latents."""


class QuantisedAutoencoder(DeterministicAutoencoder):
    """An autoencoder whose decoder sees a codebook's vectors in place of latents (VQ-VAE, arXiv 1711.00937).

    The latent z is what the encoder gives, before it is quantised: the denoiser models that, and quantising belongs to
    the decoder (as in latent diffusion, arXiv 2112.10752, Sec. 3.1). Hence the alignment reaches the encoder without
    passing a straight-through estimate; only the reconstruction's gradient does.
    """

    def forward(self, images: Float[Tensor, "b c h w"], noise: Float[Tensor, "b k m n"]) -> AutoencoderOutput:
        z, _ = self.encode(images)
        codes = self.quantise(z)
        # Forward the codes, backward the identity: choosing the nearest vector has no gradient.
        straight_through = z + (codes - z).detach()
        return AutoencoderOutput(z, None, z, self.decode_codes(straight_through), codes)

    def decode(self, z: Float[Tensor, "b k m n"]) -> Float[Tensor, "b c h w"]:
        """Images, about -1..1, of raw latents, which are quantised first."""
        return self.decode_codes(self.quantise(z))

    @abstractmethod
    def quantise(self, z: Float[Tensor, "b k m n"]) -> Float[Tensor, "b k m n"]:
        """The nearest vector of the codebook at each place, differentiable in the codebook, not in ``z``."""

    @abstractmethod
    def decode_codes(self, codes: Float[Tensor, "b k m n"]) -> Float[Tensor, "b c h w"]:
        """Images, about -1..1, of vectors of the codebook."""
