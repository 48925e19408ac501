"""An autoencoder by itself, as it is evaluated: it reconstructs and encodes, and nothing is generated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from repae.models.autoencoders import Autoencoder
from repae.models.pixels import reconstruct, to_symmetric
from repae.runtime.modes import evaluating


@dataclass(frozen=True)
class AutoencoderAlone:
    """An autoencoder without a denoiser and without statistics, under the name of its weights.

    Attributes:
        name: "ema" or "live".
        vae: the autoencoder, in any mode, which is restored.
        latent_shape: channels, height and width of a latent.
    """

    name: str
    vae: Autoencoder
    latent_shape: tuple[int, int, int]

    def reconstruct(self, images: UInt8[Tensor, "b c h w"]) -> UInt8[Tensor, "b c h w"]:
        """Images through the autoencoder and back, by the posterior's mean."""
        return reconstruct(self.vae, images)

    @torch.no_grad()
    def encode(self, images: UInt8[Tensor, "b c h w"], noise: Float[Tensor, "b k m n"]) -> Float[Tensor, "b k m n"]:
        """Latents of images as the encoder gives them, sampled from the posterior with standard normal ``noise``."""
        with evaluating(self.vae):
            mean, logvar = self.vae.encode(to_symmetric(images))
            return mean + torch.exp(0.5 * logvar) * noise
