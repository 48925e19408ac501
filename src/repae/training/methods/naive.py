"""Naive joint training, for the ablation only: the diffusion loss flows into the autoencoder (REPA-E, Sec. 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from repae.data.batch import Batch
from repae.flow.path import Path
from repae.losses.alignment import alignment_loss
from repae.losses.autoencoder import AutoencoderLoss
from repae.losses.reconstruction import flow_matching_loss
from repae.models.pixels import to_symmetric
from repae.runtime.seeds import Share
from repae.training.alignment import Alignment
from repae.training.draw import Draw, Randomness
from repae.training.frozen import frozen
from repae.training.methods.configs import Naive
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
class NaiveStep:
    """One joint step without the stop-gradient: the autoencoder, too, descends the diffusion loss.

    Its gradient passes through the batch statistics of the normaliser, as in a network trained in one piece.
    """

    method: Naive
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
        """L_DIFF(theta, phi) + eta L_REG(phi), and the alignment where its weights ask for it."""
        m = self.models
        images = to_symmetric(batch.images)
        factor = self.alignment.factor(step)
        targets = self.alignment.of_images(batch, step)

        latent = m.vae(images, draw.posterior_noise)
        x = m.latent_norm(latent.z)
        with frozen(m.denoiser) as denoiser:
            x_t, velocity = self.path.sample(x, draw.noise, draw.time)
            predicted, projected = denoiser(x_t, draw.time, batch.labels, draw.dropped_labels)
        with frozen(m.discriminator) as judge:
            vae_terms = self.loss.generator(images, latent, judge, step)
        align = alignment_loss(projected, targets) if targets else x.new_zeros(())
        vae_terms.add("vae_align_loss", align, factor * self.method.vae_align_proj_coeff)
        vae_terms.add("vae_denoising_loss", flow_matching_loss(predicted, velocity).mean())
        vae_loss = vae_terms.total
        grad_norm_vae = self.optimise.vae(vae_loss)

        adversary = update_discriminator(
            m.discriminator, self.optimise.discriminator, self.loss, images, latent.reconstruction, step
        )

        proj_coeff = factor * self.method.proj_coeff
        sit_terms = denoiser_terms(m.denoiser, self.path, x.detach(), batch, draw, targets, proj_coeff)
        sit_loss = sit_terms.total
        grad_norm_sit = self.optimise.denoiser(sit_loss)

        if grad_norm_sit is not None:
            self.averages.update()
        metrics = {"sit_loss": sit_loss.detach(), "vae_loss": vae_loss.detach(), **sit_terms.log(), **vae_terms.log()}
        metrics |= adversary | gan_weights(self.loss, step, images) | latent_health(m.latent_norm)
        metrics["align_factor"] = x.new_full((), factor)
        return with_norm("grad_norm_vae", grad_norm_vae, with_norm("grad_norm_sit", grad_norm_sit, metrics))

    def parts(self) -> Mapping[str, Stateful]:
        """All that a checkpoint holds."""
        return joint_parts(self.models, self.averages, self.optimise, self.loss)

    def modules(self) -> list[nn.Module]:
        """The trained modules."""
        return joint_modules(self.models)
