"""REPA-E: the autoencoder and the denoiser trained together through representation alignment (arXiv 2504.10483)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from repae.data.batch import Batch
from repae.flow.path import Path
from repae.losses.alignment import alignment_loss
from repae.losses.autoencoder import AutoencoderLoss
from repae.models.pixels import to_symmetric
from repae.runtime.seeds import Share
from repae.training.alignment import Alignment
from repae.training.draw import Draw, Randomness
from repae.training.frozen import frozen, judging
from repae.training.methods.configs import RepaE
from repae.training.objectives import (
    Optimisers,
    denoiser_terms,
    gan_weights,
    joint_modules,
    joint_parts,
    update_discriminator,
    with_norm,
)
from repae.training.state import Averages, Metrics, Models, Stateful, latent_health


@dataclass
class RepaEStep:
    """One joint step: phi is the autoencoder, theta the denoiser, omega its projectors, D the discriminator."""

    method: RepaE
    models: Models
    alignment: Alignment
    averages: Averages
    optimise: Optimisers
    loss: AutoencoderLoss
    path: Path
    randomness: Randomness

    def __call__(self, batch: Batch, step: int, share: Share) -> Metrics:
        """Draws t and every noise anew for this batch, then updates."""
        draw = self.randomness(step, len(batch.images), share, batch.images.device)
        return self.update(batch, draw, step)

    def update(self, batch: Batch, draw: Draw, step: int) -> Metrics:
        """L(phi, theta, omega) = L_DIFF(theta) + lambda L_REPA(theta, phi, omega) + eta L_REG(phi)."""
        m = self.models
        images = to_symmetric(batch.images)
        factor = self.alignment.factor(step)
        targets = self.alignment.of_images(batch, step)

        # phi: L_REG + lambda_vae L_REPA. The denoiser and the normaliser judge z with running statistics and no label
        # dropout, the discriminator judges the reconstruction in train mode; none of the three learns here.
        latent = m.vae(images, draw.posterior_noise)
        vae_align = latent.z.new_zeros(())
        if factor:
            with judging(m.denoiser) as denoiser, judging(m.latent_norm) as normalise:
                x_t, _ = self.path.sample(normalise(latent.z), draw.noise, draw.time)
                projected = denoiser.project(x_t, draw.time, batch.labels)
            vae_align = alignment_loss(projected, targets)
        with frozen(m.discriminator) as judge:
            vae_terms = self.loss.generator(images, latent, judge, step)
        vae_terms.add("vae_align_loss", vae_align, factor * self.method.vae_align_proj_coeff)
        vae_loss = vae_terms.total
        grad_norm_vae = self.optimise.vae(vae_loss)

        # D: real against the reconstruction that phi was just judged by.
        adversary = update_discriminator(
            m.discriminator, self.optimise.discriminator, self.loss, images, latent.reconstruction, step
        )

        # theta, omega: L_DIFF + lambda L_REPA on the same z, t and noise. The diffusion loss stops at the latent.
        x = m.latent_norm(latent.z.detach())
        sit_terms = denoiser_terms(m.denoiser, self.path, x, batch, draw, targets, factor * self.method.proj_coeff)
        sit_loss = sit_terms.total
        grad_norm_sit = self.optimise.denoiser(sit_loss)

        if grad_norm_sit is not None:
            self.averages.update()
        metrics = {"sit_loss": sit_loss.detach(), "vae_loss": vae_loss.detach(), **sit_terms.log(), **vae_terms.log()}
        metrics |= adversary | gan_weights(self.loss, step, images) | latent_health(m.latent_norm)
        metrics["align_factor"] = sit_loss.new_full((), factor)
        return with_norm("grad_norm_vae", grad_norm_vae, with_norm("grad_norm_sit", grad_norm_sit, metrics))

    def parts(self) -> Mapping[str, Stateful]:
        """All that a checkpoint holds."""
        return joint_parts(self.models, self.averages, self.optimise, self.loss)

    def modules(self) -> list[nn.Module]:
        """The trained modules."""
        return joint_modules(self.models)
