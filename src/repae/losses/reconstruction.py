"""How far an autoencoder's output is from its input, and its posterior from the prior."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def reconstruction_loss(
    reconstruction: Float[Tensor, "b c h w"], images: Float[Tensor, "b c h w"], kind: Literal["l1", "l2"]
) -> Float[Tensor, ""]:
    """Mean absolute (``l1``) or mean squared (``l2``) error over pixels, in float32; images in [-1, 1]."""
    measure = F.l1_loss if kind == "l1" else F.mse_loss
    return measure(reconstruction.float(), images.float())


def kl_divergence(mean: Float[Tensor, "b c h w"], logvar: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
    """KL(N(mean, exp(logvar)) || N(0, 1)) in nats, summed over channels and space (VAE, arXiv 1312.6114)."""
    # In fp16 the square of a mean above 255 is infinite.
    mean, logvar = mean.float(), logvar.float()
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).sum(dim=(1, 2, 3))


def flow_matching_loss(velocity: Float[Tensor, "b c h w"], target: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
    """Squared error of the predicted velocity, mean over channels and space (SiT, arXiv 2401.08740)."""
    return (velocity.float() - target.float()).square().mean(dim=(1, 2, 3))
