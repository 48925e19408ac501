"""The objectives of the autoencoder and of its discriminator: L_REG of REPA-E (arXiv 2504.10483, Sec. 3.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

from pydantic import Field
from torch import Tensor, nn

from repae.config import Config
from repae.losses.adversarial import LeCam, generator_loss, hinge_loss
from repae.losses.perceptual import Images, Perceptual
from repae.losses.quantiser import codebook_loss, commitment_loss
from repae.losses.reconstruction import kl_divergence, reconstruction_loss
from repae.losses.terms import Terms

Discriminate = Callable[[Tensor], Tensor]
"""Images ``[B, C, H, W]`` in [-1, 1] to patch logits ``[B, 1, H', W']``."""


@runtime_checkable
class Latent(Protocol):
    """What an autoencoder made of images, as its objective sees it."""

    @property
    def reconstruction(self) -> Tensor: ...

    @property
    def mean(self) -> Tensor:
        """What was encoded: the posterior's mean, or the latent itself, ``[B, k, h, w]``."""
        ...

    @property
    def logvar(self) -> Tensor | None:
        """The posterior's log-variance; None where there is no posterior."""
        ...

    @property
    def codes(self) -> Tensor | None: ...


class AutoencoderLossConfig(Config):
    """Weights of reconstruction + perceptual + latent + GAN. The defaults are the published run's: L1, LPIPS, KL, GAN.

    The latent's term is the autoencoder's own: ``kl_weight`` counts where there is a posterior, ``quantizer_weight``
    and ``commitment_cost`` where there is a codebook, and a deterministic autoencoder has none.
    """

    reconstruction_loss: Literal["l1", "l2"] = "l1"
    reconstruction_weight: float = Field(default=1.0, ge=0)
    perceptual_weight: float = Field(default=1.0, ge=0)
    kl_weight: float = Field(default=1e-6, ge=0)
    quantizer_weight: float = Field(default=1.0, ge=0)
    commitment_cost: float = Field(default=0.25, ge=0)
    logvar_init: float = 0.0
    discriminator_start: int = Field(default=0, ge=0)
    discriminator_factor: float = Field(default=1.0, ge=0)
    discriminator_weight: float = Field(default=0.1, ge=0)
    lecam_regularization_weight: float = Field(default=0.0, ge=0)
    lecam_ema_decay: float = Field(default=0.999, ge=0, le=1)


class AutoencoderLoss(nn.Module):
    """Reconstruction + perceptual + latent + hinge GAN with a fixed weight, and the discriminator's side of it.

    Holds no trained parameter: only LeCam's moving means, when its weight is not zero. The discriminator is passed
    in as a function, by whoever decides which of its parameters learn.
    """

    def __init__(self, config: AutoencoderLossConfig, perceptual: Perceptual | None = None) -> None:
        super().__init__()
        self.config = config
        self._perceptual = perceptual
        self.lecam = LeCam(config.lecam_ema_decay) if config.lecam_regularization_weight > 0 else None

    def gan_factor(self, step: int) -> float:
        """``discriminator_factor`` from ``discriminator_start`` on (steps count from 0), zero before."""
        return self.config.discriminator_factor if step >= self.config.discriminator_start else 0.0

    def generator(self, images: Images, latent: Latent, discriminate: Discriminate | None, step: int) -> Terms:
        """What the autoencoder minimises, alignment apart; images in [-1, 1].

        reconstruction / exp(logvar_init) + perceptual + what bounds the latent + GAN. The latent is bound by its KL
        (sum over the latent, mean over the batch), or to its codebook, or not at all. The adversarial term is evaluated
        only where it counts: ``discriminate`` given, factor and weight above zero.
        """
        c, terms, reconstruction = self.config, Terms(), latent.reconstruction
        pixel = reconstruction_loss(reconstruction, images, c.reconstruction_loss)
        # The log-variance of the pixels is a constant, never learned: so it was in the published runs.
        terms.add("reconstruction_loss", c.reconstruction_weight * pixel / math.exp(c.logvar_init))
        perceptual = pixel.new_zeros(())
        if self._perceptual is not None and c.perceptual_weight > 0:
            perceptual = c.perceptual_weight * self._perceptual(reconstruction, images)
        terms.add("perceptual_loss", perceptual)
        if latent.logvar is not None:
            terms.add("kl_loss", c.kl_weight * kl_divergence(latent.mean, latent.logvar).mean())
        if latent.codes is not None:
            codebook = codebook_loss(latent.mean, latent.codes)
            commitment = c.commitment_cost * commitment_loss(latent.mean, latent.codes)
            terms.add("quantizer_loss", c.quantizer_weight * (codebook + commitment))
            terms.add("codebook_loss", codebook, weight=0.0)
            terms.add("commitment_loss", commitment, weight=0.0)
        factor, gan = self.gan_factor(step), pixel.new_zeros(())
        if discriminate is not None and factor > 0 and c.discriminator_weight > 0:
            # A fixed weight, as in the published runs: VQGAN's, balanced by gradient norms, is another objective.
            gan = generator_loss(discriminate(reconstruction))
        terms.add("weighted_gan_loss", c.discriminator_weight * factor * gan)
        terms.add("gan_loss", gan, weight=0.0)
        return terms

    def discriminator(self, images: Images, reconstruction: Images, discriminate: Discriminate, step: int) -> Terms:
        """What the discriminator minimises: factor * hinge + LeCam, on real and reconstructed images in two passes.

        LeCam acts before ``discriminator_start`` too, as in the reference.
        """
        # Two passes and not one joint batch: batch norm sees each side with its own statistics, as in the reference.
        logits_real = discriminate(images.detach())
        logits_fake = discriminate(reconstruction.detach())
        hinge = self.gan_factor(step) * hinge_loss(logits_real, logits_fake)
        lecam = hinge.new_zeros(())
        if self.lecam is not None:
            lecam = self.config.lecam_regularization_weight * self.lecam(logits_real, logits_fake)
            # After the penalty, which holds this batch against those before it.
            self.lecam.update(logits_real, logits_fake)
        terms = Terms()
        terms.add("hinge_loss", hinge)
        terms.add("lecam_loss", lecam)
        terms.add("logits_real", logits_real.float().mean(), weight=0.0)
        terms.add("logits_fake", logits_fake.float().mean(), weight=0.0)
        return terms
