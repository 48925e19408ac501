"""The game between the autoencoder and its discriminator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from repae.runtime.distributed import all_reduce_mean

Logits = Float[Tensor, "b 1 h w"]
"""Of a discriminator, one for each patch of an image."""


def generator_loss(logits_fake: Logits) -> Float[Tensor, ""]:
    """-mean D(reconstruction): what the autoencoder minimises (geometric GAN, arXiv 1705.02894)."""
    return -logits_fake.float().mean()


def hinge_loss(logits_real: Logits, logits_fake: Logits) -> Float[Tensor, ""]:
    """0.5 (mean relu(1 - D(real)) + mean relu(1 + D(fake))): what the discriminator minimises; 1 at zero logits."""
    return 0.5 * (F.relu(1.0 - logits_real.float()).mean() + F.relu(1.0 + logits_fake.float()).mean())


class LeCam(nn.Module):
    """LeCam regularisation of the discriminator (arXiv 2104.03310) with the moving means it needs.

    The penalty uses the means as they were before this batch; ``update`` then moves them. Batch means are taken over
    all ranks. State: ``ema_real`` and ``ema_fake``, both ``[1]`` float32.
    """

    ema_real: Tensor
    ema_fake: Tensor

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__()
        self.decay = decay
        # [1] and not []: the shape that the reference saves.
        self.register_buffer("ema_real", torch.zeros(1))
        self.register_buffer("ema_fake", torch.zeros(1))

    def forward(self, logits_real: Logits, logits_fake: Logits) -> Float[Tensor, ""]:
        """relu(mean D(real) - ema_fake)^2 + relu(ema_real - mean D(fake))^2, unweighted."""
        # Means first: the squared hinge of single logits is larger, and another penalty.
        real = all_reduce_mean(logits_real.float().mean())
        fake = all_reduce_mean(logits_fake.float().mean())
        return (F.relu(real - self.ema_fake).square() + F.relu(self.ema_real - fake).square()).squeeze()

    @torch.no_grad()
    def update(self, logits_real: Logits, logits_fake: Logits) -> None:
        """Moves both means towards this batch's: ema <- decay ema + (1 - decay) mean."""
        for ema, logits in ((self.ema_real, logits_real), (self.ema_fake, logits_fake)):
            ema.lerp_(all_reduce_mean(logits.detach().float().mean()).expand(1), 1.0 - self.decay)
