"""Images as levels 0..255 and as the numbers that networks see."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from repae.models.autoencoders.base import Autoencoder
from repae.runtime.modes import evaluating


def to_symmetric(images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Levels 0..255 to [-1, 1], the range that the autoencoder, its losses and the discriminator see."""
    return images.float() / 127.5 - 1.0


def to_levels(images: Float[Tensor, "b c h w"]) -> UInt8[Tensor, "b c h w"]:
    """[-1, 1] to levels 0..255, rounded: truncation darkens every image by half a level."""
    return ((images.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


@torch.no_grad()
def reconstruct(vae: Autoencoder, images: UInt8[Tensor, "b c h w"]) -> UInt8[Tensor, "b c h w"]:
    """Images through the autoencoder and back, by the posterior's mean."""
    with evaluating(vae):
        mean, _ = vae.encode(to_symmetric(images))
        return to_levels(vae.decode(mean))
