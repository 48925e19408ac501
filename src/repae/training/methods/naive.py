"""Naive joint training, for the ablation only: the diffusion loss flows into the autoencoder (REPA-E, Sec. 3.1)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from repae.data.batch import Batch
from repae.losses.alignment import alignment_loss
from repae.losses.reconstruction import flow_matching_loss
from repae.models.pixels import to_symmetric
from repae.training.alignment import AlignedMethod
from repae.training.build import StepBuilder
from repae.training.draw import Draw
from repae.training.frozen import frozen
from repae.training.joint import JointStep
from repae.training.method import ALL_PLAYERS, MethodTraits, register_method
from repae.training.objectives import denoiser_terms, gan_weights, update_discriminator, with_norm
from repae.training.state import Metrics, Players, latent_health


@register_method
class Naive(AlignedMethod):
    """Joint training with the diffusion loss flowing into the autoencoder: the collapse that REPA-E avoids.

    For the ablation only (REPA-E, Table "no stop-gradient"). With alignment weights above zero it is REPA-E without
    the stop-gradient.

    Attributes:
        vae_align_proj_coeff: weight of the alignment in the autoencoder's objective.
    """

    kind: Literal["naive"] = "naive"
    proj_coeff: float = Field(default=0.0, ge=0)
    vae_align_proj_coeff: float = Field(default=0.0, ge=0)

    @property
    def traits(self) -> MethodTraits:
        total = self.align_schedule.depends_on_total
        return MethodTraits(players=ALL_PLAYERS, trains=ALL_PLAYERS, end_to_end=True, depends_on_total=total)

    def build(self, players: Players, builder: StepBuilder) -> NaiveStep:
        return NaiveStep(self, *builder.joint(self, players))


class NaiveStep(JointStep[Naive]):
    """One joint step without the stop-gradient: the autoencoder, too, descends the diffusion loss.

    Its gradient passes through the batch statistics of the normaliser, as in a network trained in one piece.
    """

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
        with frozen(m.discriminator) as discriminator:
            vae_terms = self.loss.generator(images, latent, discriminator, step)
        align = alignment_loss(projected, targets) if targets else x.new_zeros(())
        vae_terms.add("vae_align_loss", align, factor * self.method.vae_align_proj_coeff)
        vae_terms.add("vae_denoising_loss", flow_matching_loss(predicted, velocity).mean())
        vae_loss = vae_terms.total
        grad_norm_vae = self.optimise.vae(vae_loss)

        adversary = update_discriminator(
            m.discriminator, self.optimise.discriminator, self.loss, images, latent.reconstruction, step
        )

        proj_coeff = factor * self.method.proj_coeff
        # theta was frozen in the first pass, so it needs its own. x is kept, since normalising it again would count
        # this batch twice in the running statistics.
        terms = denoiser_terms(m.denoiser, self.path, x.detach(), batch, draw, targets, proj_coeff)
        denoiser_loss = terms.total
        grad_norm = self.optimise.denoiser(denoiser_loss)

        if grad_norm is not None:
            self.averages.update()
        metrics = {"sit_loss": denoiser_loss.detach(), "vae_loss": vae_loss.detach(), **terms.log(), **vae_terms.log()}
        metrics |= adversary | gan_weights(self.loss, step, images) | latent_health(m.latent_norm)
        metrics["align_factor"] = x.new_full((), factor)
        return with_norm("grad_norm_vae", grad_norm_vae, with_norm("grad_norm_sit", grad_norm, metrics))
