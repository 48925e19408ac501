"""REPA and plain SiT: the denoiser alone, on the latents of a frozen autoencoder (arXiv 2410.06940, 2401.08740)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from repae.data.batch import Batch
from repae.flow.path import Path
from repae.runtime.optimise import Optimiser
from repae.runtime.seeds import Share
from repae.training.alignment import Alignment
from repae.training.draw import Draw, Randomness
from repae.training.methods.configs import Repa
from repae.training.objectives import denoiser_terms, posterior_of, with_norm
from repae.training.state import Averages, Metrics, Models, Stateful, latent_health, named_parts


@dataclass
class RepaStep:
    """One step of the denoiser; the autoencoder is frozen and the latent statistics are fixed.

    Latents are sampled anew from their posteriors at each step, whether these were just encoded or come from a cache.
    """

    method: Repa
    models: Models
    alignment: Alignment
    averages: Averages
    optimise: Optimiser
    path: Path
    randomness: Randomness

    def __call__(self, batch: Batch, step: int, share: Share) -> Metrics:
        """Draws t and every noise anew for this batch, then updates."""
        return self.update(batch, self.randomness(step, len(batch.images), share, batch.images.device), step)

    def update(self, batch: Batch, draw: Draw, step: int) -> Metrics:
        """L_DIFF(theta) + proj_coeff L_REPA(theta, omega)."""
        m = self.models
        with torch.no_grad():
            mean, std = posterior_of(batch, m.vae)
            x = m.latent_norm(mean + std * draw.posterior_noise)
        factor = self.alignment.factor(step)
        targets = self.alignment.of_images(batch, step) + self.alignment.of_latents(x, batch, draw, step)
        terms = denoiser_terms(m.denoiser, self.path, x, batch, draw, targets, factor * self.method.proj_coeff)
        sit_loss = terms.total
        grad_norm_sit = self.optimise(sit_loss)
        if grad_norm_sit is not None:
            self.averages.update()
        metrics = {"sit_loss": sit_loss.detach(), **terms.log(), **latent_health(m.latent_norm)}
        metrics["align_factor"] = x.new_full((), factor)
        return with_norm("grad_norm_sit", grad_norm_sit, metrics)

    def parts(self) -> Mapping[str, Stateful]:
        """All that a checkpoint holds; the frozen autoencoder too, so that a checkpoint decodes by itself."""
        m = self.models
        return named_parts(
            vae=m.vae,
            denoiser=m.denoiser,
            latent_norm=m.latent_norm,
            optimiser_denoiser=self.optimise,
            **self.averages.parts(),
        )

    def modules(self) -> list[nn.Module]:
        """The trained module."""
        return [self.models.denoiser]
