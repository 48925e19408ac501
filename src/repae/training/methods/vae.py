"""The autoencoder alone: trained from scratch, fine-tuned, or left as it is while a discriminator warms up to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import nn

from repae.data.batch import Batch
from repae.losses.autoencoder import AutoencoderLoss
from repae.models.autoencoders import Autoencoder
from repae.models.bundle import Bundle
from repae.models.pixels import to_symmetric
from repae.runtime.ema import EMA
from repae.runtime.optimise import Optimiser
from repae.runtime.parallel import unwrap
from repae.runtime.seeds import Share, generator
from repae.training.build import StepBuilder
from repae.training.frozen import frozen
from repae.training.method import MethodConfig, MethodStep, MethodTraits, register_method
from repae.training.objectives import gan_weights, update_discriminator, with_norm
from repae.training.state import BundleName, Metrics, Players, Stateful, named_parts


@register_method
class VaeOnly(MethodConfig):
    """The autoencoder and its discriminator, without a denoiser: from scratch, fine-tuning, warm-up.

    ``train_autoencoder=False`` leaves the autoencoder as it is and trains a discriminator for it.
    """

    kind: Literal["vae"] = "vae"
    train_autoencoder: bool = True

    @property
    def traits(self) -> MethodTraits:
        return MethodTraits(
            players=frozenset({"vae", "discriminator"}),
            trains=frozenset({"vae", "discriminator"} if self.train_autoencoder else {"discriminator"}),
            # No "reference": that mixture is about which autoencoder goes with an averaged denoiser.
            bundles=("ema", "live"),
        )

    def build(self, players: Players, builder: StepBuilder) -> VaeStep:
        optimisers = builder.setup.optimisers
        builder.prepare(players.vae, trained=self.train_autoencoder)
        vae, optimise = players.vae, None
        if self.train_autoencoder:
            vae, optimise = builder.trained(vae, optimisers.vae)
        average = EMA(vae, builder.setup.ema)
        discriminator, optimise_discriminator = builder.adversary(players)
        shape = players.latent_shape
        return VaeStep(
            vae, average, discriminator, optimise, optimise_discriminator, builder.loss(), builder.setup.seed, shape
        )


@dataclass
class VaeStep(MethodStep):
    """One step of L_REG(phi) and of its discriminator. Without ``optimise`` the autoencoder stays as it is."""

    vae: Autoencoder
    average: EMA
    discriminator: nn.Module | None
    optimise: Optimiser | None
    optimise_discriminator: Optimiser | None
    loss: AutoencoderLoss
    seed: int
    latent_shape: tuple[int, int, int]

    def __call__(self, batch: Batch, step: int, share: Share) -> Metrics:
        device = batch.images.device
        total = len(batch.images) * share.micros * share.size
        source = generator(device, self.seed, "step", step)
        noise = torch.randn((total, *self.latent_shape), generator=source, device=device)
        return self.update(batch, share.of(noise), step)

    def update(self, batch: Batch, posterior_noise: torch.Tensor, step: int) -> Metrics:
        """Reconstruction + perceptual + latent + GAN for the autoencoder, then the hinge for the discriminator."""
        images = to_symmetric(batch.images)
        metrics: Metrics = {}
        # A frozen autoencoder needs no graph; its terms are logged all the same.
        with torch.set_grad_enabled(self.optimise is not None):
            latent = self.vae(images, posterior_noise)
        with frozen(self.discriminator) as discriminator:
            terms = self.loss.generator(images, latent, discriminator, step)
        vae_loss = terms.total
        if self.optimise is not None:
            grad_norm = self.optimise(vae_loss)
            if grad_norm is not None:
                self.average.update()
            metrics = with_norm("grad_norm_vae", grad_norm, metrics)
        adversary = update_discriminator(
            self.discriminator, self.optimise_discriminator, self.loss, images, latent.reconstruction, step
        )
        metrics |= {"vae_loss": vae_loss.detach(), **terms.log()}
        return metrics | adversary | gan_weights(self.loss, step, images)

    def parts(self) -> Mapping[str, Stateful]:
        return named_parts(
            vae=self.vae,
            ema_vae=self.average,
            discriminator=self.discriminator,
            lecam=self.loss.lecam,
            optimiser_vae=self.optimise,
            optimiser_discriminator=self.optimise_discriminator,
        )

    def modules(self) -> list[nn.Module]:
        trained = [self.vae if self.optimise is not None else None, self.discriminator]
        return [module for module in trained if module is not None]

    def bundle(self, name: BundleName) -> Bundle:
        vae = {"ema": self.average.module, "live": unwrap(self.vae)}[name]
        return Bundle(name, None, cast(Autoencoder, vae), None)
