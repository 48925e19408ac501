"""REPA-E: the autoencoder and the denoiser trained together through representation alignment (arXiv 2504.10483)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from repae.data.batch import Batch
from repae.losses.alignment import alignment_loss
from repae.models.pixels import to_symmetric
from repae.training.alignment import AlignedMethod
from repae.training.build import StepBuilder
from repae.training.draw import Draw
from repae.training.frozen import frozen, frozen_eval
from repae.training.joint import JointStep
from repae.training.method import ALL_PLAYERS, MethodTraits, register_method
from repae.training.objectives import denoiser_terms, gan_weights, update_discriminator, with_norm
from repae.training.state import Metrics, Players, latent_health


@register_method
class RepaE(AlignedMethod):
    """Joint training through representation alignment (REPA-E, arXiv 2504.10483).

    The diffusion loss never reaches the autoencoder.

    Attributes:
        vae_align_proj_coeff: weight of the alignment in the autoencoder's objective.
    """

    kind: Literal["repa-e"] = "repa-e"
    vae_align_proj_coeff: float = Field(default=1.5, ge=0)

    @property
    def traits(self) -> MethodTraits:
        total = self.align_schedule.depends_on_total
        return MethodTraits(players=ALL_PLAYERS, trains=ALL_PLAYERS, depends_on_total=total)

    def build(self, players: Players, builder: StepBuilder) -> RepaEStep:
        return RepaEStep(self, *builder.joint(self, players))


class RepaEStep(JointStep[RepaE]):
    """One joint step: phi is the autoencoder, theta the denoiser, omega its projectors, D the discriminator."""

    def update(self, batch: Batch, draw: Draw, step: int) -> Metrics:
        """L(phi, theta, omega) = L_DIFF(theta) + lambda L_REPA(theta, phi, omega) + eta L_REG(phi)."""
        m = self.models
        images = to_symmetric(batch.images)
        factor = self.alignment.factor(step)
        targets = self.alignment.of_images(batch, step)

        # phi: L_REG + lambda_vae L_REPA. The denoiser and the normaliser see z with running statistics and no label
        # dropout, the discriminator sees the reconstruction in train mode; none of the three learns here.
        latent = m.vae(images, draw.posterior_noise)
        vae_align = latent.z.new_zeros(())
        # Once alignment is over, the pass through the denoiser would train nobody.
        if factor:
            # Eval mode also counts the batch once: only theta's pass, below, moves the running statistics.
            with frozen_eval(m.denoiser) as denoiser, frozen_eval(m.latent_norm) as normalise:
                x_t, _ = self.path.sample(normalise(latent.z), draw.noise, draw.time)
                projected = denoiser.project(x_t, draw.time, batch.labels)
            vae_align = alignment_loss(projected, targets)
        # Not in eval mode: the autoencoder must meet the logits that D's own update will see.
        with frozen(m.discriminator) as discriminator:
            vae_terms = self.loss.generator(images, latent, discriminator, step)
        vae_terms.add("vae_align_loss", vae_align, factor * self.method.vae_align_proj_coeff)
        vae_loss = vae_terms.total
        grad_norm_vae = self.optimise.vae(vae_loss)

        # D: real against the reconstruction that phi was updated with.
        adversary = update_discriminator(
            m.discriminator, self.optimise.discriminator, self.loss, images, latent.reconstruction, step
        )

        # theta, omega: L_DIFF + lambda L_REPA on the same z, t and noise. The diffusion loss stops at the latent.
        # By the statistics of the batch, where phi's pass used the running ones: the same z, not quite the same x.
        x = m.latent_norm(latent.z.detach())
        terms = denoiser_terms(m.denoiser, self.path, x, batch, draw, targets, factor * self.method.proj_coeff)
        denoiser_loss = terms.total
        grad_norm = self.optimise.denoiser(denoiser_loss)

        # After whole steps only: an average moved by each micro-batch would forget that many times faster.
        if grad_norm is not None:
            self.averages.update()
        metrics = {"sit_loss": denoiser_loss.detach(), "vae_loss": vae_loss.detach(), **terms.log(), **vae_terms.log()}
        metrics |= adversary | gan_weights(self.loss, step, images) | latent_health(m.latent_norm)
        metrics["align_factor"] = denoiser_loss.new_full((), factor)
        return with_norm("grad_norm_vae", grad_norm_vae, with_norm("grad_norm_sit", grad_norm, metrics))
