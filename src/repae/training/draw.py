"""The randomness of one step, a function of (seed, step) for the whole global batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from repae.flow.path import Path
from repae.flow.time import Time
from repae.runtime.seeds import Share, generator


class Draw(NamedTuple):
    """What one micro-batch of one rank draws, anew for every batch and shared by the two passes of one batch.

    time ``[B]`` in [0, 1); noise and posterior_noise ``[B, C, h, w]`` standard normal; dropped_labels ``[B]``; earlier
    ``[B]`` in [0, 1), by which share of its interval a self teacher's time is smaller.
    """

    time: Float[Tensor, " b"]
    noise: Float[Tensor, "b c h w"]
    posterior_noise: Float[Tensor, "b c h w"]
    dropped_labels: Bool[Tensor, " b"]
    earlier: Float[Tensor, " b"] | None = None


@dataclass
class Randomness:
    """Draws the global batch's randomness on every rank and takes the share asked for.

    Training on two processes, or in two micro-batches, therefore sees the very numbers that one process sees, and a
    resumed run goes on as if it had never stopped: nothing of it has to be saved.
    """

    seed: int
    latent_shape: tuple[int, int, int]
    path: Path
    time: Time
    label_dropout: float

    def __call__(self, step: int, batch_size: int, share: Share, device: torch.device) -> Draw:
        """The draw of ``batch_size`` samples: this rank's part of this micro-batch of step ``step``."""
        total = batch_size * share.micros * share.size
        shape = (total, *self.latent_shape)
        source = generator(device, self.seed, "step", step)
        time = self.time.sample(total, self.path, source, device)
        noise = torch.randn(shape, generator=source, device=device)
        # Not the path's noise again: the noise in x_t would then depend on the latent that it hides.
        posterior_noise = torch.randn(shape, generator=source, device=device)
        # Here and not inside the network, where each rank would draw from a state of its own.
        dropped = torch.rand(total, generator=source, device=device) < self.label_dropout
        # Last, so that a run with a self teacher sees the same times, noise and labels as one without.
        earlier = torch.rand(total, generator=source, device=device)
        return Draw(share.of(time), share.of(noise), share.of(posterior_noise), share.of(dropped), share.of(earlier))
