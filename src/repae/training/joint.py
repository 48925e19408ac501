"""What steps with a denoiser share: their players, and how these are saved; an ``update`` is what they add."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import nn

from repae.data.batch import Batch
from repae.flow.path import Path
from repae.losses.autoencoder import AutoencoderLoss
from repae.models.bundle import Bundle
from repae.runtime.optimise import Optimiser
from repae.runtime.seeds import Share
from repae.training.alignment import AlignedMethod, Alignment
from repae.training.draw import Draw, Randomness
from repae.training.method import MethodStep
from repae.training.state import Averages, BundleName, Metrics, Models, Stateful, bundle, named_parts

MethodT = TypeVar("MethodT", bound=AlignedMethod)


@dataclass
class Optimisers:
    vae: Optimiser
    denoiser: Optimiser
    discriminator: Optimiser | None


@dataclass
class DenoiserStep(MethodStep, Generic[MethodT]):
    """A step that trains the denoiser, alone or with others."""

    method: MethodT
    models: Models
    alignment: Alignment
    averages: Averages
    path: Path
    randomness: Randomness

    def __call__(self, batch: Batch, step: int, share: Share) -> Metrics:
        return self.update(batch, self.randomness(step, len(batch.images), share, batch.images.device), step)

    @abstractmethod
    def update(self, batch: Batch, draw: Draw, step: int) -> Metrics:
        """The method itself: a step given its batch and everything random."""

    def bundle(self, name: BundleName) -> Bundle:
        return bundle(name, self.models, self.averages)


@dataclass
class JointStep(DenoiserStep[MethodT]):
    """A step of autoencoder, denoiser and discriminator together."""

    optimise: Optimisers
    loss: AutoencoderLoss

    def parts(self) -> Mapping[str, Stateful]:
        m = self.models
        return named_parts(
            vae=m.vae,
            denoiser=m.denoiser,
            latent_norm=m.latent_norm,
            discriminator=m.discriminator,
            # Its moving means belong to the game: a resumed run must not start the penalty from zeros.
            lecam=self.loss.lecam,
            optimiser_vae=self.optimise.vae,
            optimiser_denoiser=self.optimise.denoiser,
            optimiser_discriminator=self.optimise.discriminator,
            **self.averages.parts(),
        )

    def modules(self) -> list[nn.Module]:
        m = self.models
        return [module for module in (m.vae, m.denoiser, m.discriminator) if module is not None]
