"""What binds an encoder to its codebook (VQ-VAE, arXiv 1711.00937, Eq. 3)."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def codebook_loss(z: Float[Tensor, "b k m n"], codes: Float[Tensor, "b k m n"]) -> Float[Tensor, ""]:
    """||sg[z] - e||^2, mean over all elements: moves the codebook's vectors to the latents that chose them."""
    return F.mse_loss(codes.float(), z.detach().float())


def commitment_loss(z: Float[Tensor, "b k m n"], codes: Float[Tensor, "b k m n"]) -> Float[Tensor, ""]:
    """||z - sg[e]||^2, mean over all elements: keeps the latents near the vectors they chose."""
    return F.mse_loss(z.float(), codes.detach().float())
