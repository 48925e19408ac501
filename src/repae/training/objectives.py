"""The pieces of a step that several methods share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from repae.data.batch import Batch
from repae.flow.path import Path
from repae.losses.alignment import alignment_loss
from repae.losses.autoencoder import AutoencoderLoss
from repae.losses.reconstruction import flow_matching_loss
from repae.losses.terms import Terms
from repae.models.autoencoders import Autoencoder
from repae.models.denoiser import Denoiser
from repae.models.pixels import to_symmetric
from repae.runtime.parallel import unwrap
from repae.training.draw import Draw
from repae.training.state import Metrics


def posterior_of(batch: Batch, vae: Autoencoder) -> tuple[Float[Tensor, "b k m n"], Float[Tensor, "b k m n"]]:
    """Mean and standard deviation of the latents: those that the batch brings along, else the autoencoder's."""
    if batch.latents is not None:
        return batch.latents
    mean, logvar = vae.encode(to_symmetric(batch.images))
    return mean, (0.5 * logvar).exp()


def denoiser_terms(
    denoiser: nn.Module,
    path: Path,
    x: Float[Tensor, "b c h w"],
    batch: Batch,
    draw: Draw,
    targets: Sequence[Tensor],
    proj_coeff: float,
) -> Terms:
    """L_DIFF(theta) + proj_coeff L_REPA(theta, omega) on normalised latents (REPA-E, arXiv 2504.10483)."""
    x_t, velocity = path.sample(x, draw.noise, draw.time)
    predicted, projected = denoiser(x_t, draw.time, batch.labels, draw.dropped_labels)
    terms = Terms()
    denoising = flow_matching_loss(predicted, velocity).mean()
    if not proj_coeff:
        # Data parallelism waits for a gradient of every parameter; idle projectors get one of zeros.
        for parameter in cast(Denoiser, unwrap(denoiser)).projectors.parameters():
            denoising = denoising + 0.0 * parameter.sum()
    terms.add("denoising_loss", denoising)
    terms.add("proj_loss", alignment_loss(projected, targets) if targets else x.new_zeros(()), proj_coeff)
    return terms


def update_discriminator(
    discriminator: nn.Module | None,
    optimise: Callable[[Tensor], Tensor | None] | None,
    loss: AutoencoderLoss,
    images: Float[Tensor, "b c h w"],
    reconstruction: Float[Tensor, "b c h w"],
    step: int,
) -> Metrics:
    """The discriminator's update on the reconstruction that the autoencoder just learned from; zeros without one."""
    if discriminator is None or optimise is None:
        # Zeros rather than no values: a log's columns should not depend on whether anyone plays against.
        nothing = torch.zeros((), device=images.device)
        return dict.fromkeys(("d_loss", "logits_real", "logits_fake", "lecam_loss", "grad_norm_disc"), nothing)
    terms = loss.discriminator(images, reconstruction, discriminator, step)
    d_loss = terms.total
    metrics = with_norm("grad_norm_disc", optimise(d_loss), {"d_loss": d_loss.detach(), **terms.log()})
    del metrics["hinge_loss"]
    return metrics


def gan_weights(loss: AutoencoderLoss, step: int, like: Tensor) -> Metrics:
    """The two constants of the adversarial game that a log should show beside its losses."""
    return {
        "discriminator_factor": like.new_full((), loss.gan_factor(step)),
        "d_weight": like.new_full((), loss.config.discriminator_weight),
    }


def with_norm(name: str, norm: Tensor | None, metrics: Metrics) -> Metrics:
    """``metrics`` with a gradient norm, which exists only on the last micro-batch of a step."""
    return metrics if norm is None else {**metrics, name: norm}
