"""REPA and plain SiT: the denoiser alone, on the latents of a frozen autoencoder (arXiv 2410.06940, 2401.08740)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from repae.data.batch import Batch
from repae.runtime.optimise import Optimiser
from repae.training.alignment import AlignedMethod
from repae.training.build import StepBuilder
from repae.training.draw import Draw
from repae.training.joint import DenoiserStep
from repae.training.method import MethodTraits, SelfTeacherConfig, register_method
from repae.training.objectives import denoiser_terms, posterior_of, with_norm
from repae.training.state import Metrics, Players, Stateful, latent_health, named_parts


@register_method
class Repa(AlignedMethod):
    """The denoiser alone on a frozen autoencoder (REPA, arXiv 2410.06940); ``proj_coeff=0`` is plain SiT.

    Attributes:
        self_teacher: one more teacher, or the only one.
    """

    kind: Literal["repa"] = "repa"
    self_teacher: SelfTeacherConfig | None = None

    @property
    def traits(self) -> MethodTraits:
        return MethodTraits(
            players=frozenset({"vae", "denoiser"}),
            trains=frozenset({"denoiser"}),
            self_teacher=self.self_teacher,
            from_latents=True,
            depends_on_total=self.align_schedule.depends_on_total,
        )

    def build(self, players: Players, builder: StepBuilder) -> RepaStep:
        return RepaStep(self, *builder.denoising(self, players))


@dataclass
class RepaStep(DenoiserStep[Repa]):
    """One step of the denoiser; the autoencoder is frozen and the latent statistics are fixed.

    Latents are sampled anew from their posteriors at each step, whether these were just encoded or come from a cache.
    """

    optimise: Optimiser

    def update(self, batch: Batch, draw: Draw, step: int) -> Metrics:
        """L_DIFF(theta) + proj_coeff L_REPA(theta, omega)."""
        m = self.models
        with torch.no_grad():
            mean, std = posterior_of(batch, m.vae)
            x = m.latent_norm(mean + std * draw.posterior_noise)
        factor = self.alignment.factor(step)
        targets = self.alignment.of_images(batch, step) + self.alignment.of_latents(x, batch, draw, step)
        terms = denoiser_terms(m.denoiser, self.path, x, batch, draw, targets, factor * self.method.proj_coeff)
        denoiser_loss = terms.total
        grad_norm = self.optimise(denoiser_loss)
        if grad_norm is not None:
            self.averages.update()
        metrics = {"sit_loss": denoiser_loss.detach(), **terms.log(), **latent_health(m.latent_norm)}
        metrics["align_factor"] = x.new_full((), factor)
        return with_norm("grad_norm_sit", grad_norm, metrics)

    def parts(self) -> Mapping[str, Stateful]:
        # The frozen autoencoder too, so that a checkpoint decodes by itself.
        m = self.models
        return named_parts(
            vae=m.vae,
            denoiser=m.denoiser,
            latent_norm=m.latent_norm,
            optimiser_denoiser=self.optimise,
            **self.averages.parts(),
        )

    def modules(self) -> list[nn.Module]:
        return [self.models.denoiser]
