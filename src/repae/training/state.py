"""What is trained together, what is averaged together, and what may be used together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

from repae.data.batch import Batch
from repae.models.autoencoders import Autoencoder
from repae.models.bundle import Bundle
from repae.models.denoiser import Denoiser
from repae.models.discriminator import PatchGAN
from repae.models.latent_norm import LatentNorm
from repae.models.teachers.targets import Targets
from repae.runtime.checkpoint import Stateful
from repae.runtime.ema import EMA, EmaConfig
from repae.runtime.parallel import unwrap
from repae.runtime.seeds import Share

BundleName = Literal["live", "ema", "reference"]
"""Which weights, autoencoder and statistics go together: all live; all averaged over the same steps; or the
reference's mixture, averaged denoiser and statistics with the live autoencoder."""

BUNDLES: dict[BundleName, tuple[str, str, str]] = {
    "live": ("denoiser", "vae", "latent_norm"),
    "ema": ("ema_denoiser", "ema_vae", "ema_latent_norm"),
    "reference": ("ema_denoiser", "vae", "ema_latent_norm"),
}
"""The parts of a checkpoint, denoiser, autoencoder and statistics, that each bundle puts together."""

Metrics = dict[str, Tensor]
"""Device scalars by name; nobody waits for them before the logging interval."""


@runtime_checkable
class Step(Protocol):
    """What the loop trains."""

    @abstractmethod
    def __call__(self, batch: Batch, step: int, share: Share) -> Metrics:
        """Trains on one micro-batch of step ``step`` (from 0)."""

    @abstractmethod
    def parts(self) -> Mapping[str, Stateful]:
        """Everything that a checkpoint must hold to go on bit for bit."""

    @abstractmethod
    def modules(self) -> list[nn.Module]:
        """The trained modules, wrapped as they are."""


@dataclass
class Players:
    """The networks of a run before its method takes them over; what the method does not need is None.

    ``latent_shape`` is (c, h, w).
    """

    vae: Autoencoder
    denoiser: Denoiser | None
    latent_norm: LatentNorm | None
    discriminator: PatchGAN | None
    targets: Targets
    latent_shape: tuple[int, int, int]


@dataclass
class Models:
    """The networks of a method with a denoiser; the discriminator is missing where nobody plays against it."""

    vae: Autoencoder
    denoiser: Denoiser
    latent_norm: LatentNorm
    discriminator: nn.Module | None
    targets: Targets


class Averages:
    """Moving averages of the denoiser, the autoencoder and the latent statistics, all over the same steps."""

    def __init__(self, models: Models, config: EmaConfig) -> None:
        self.denoiser = EMA(unwrap(models.denoiser), config)
        # Beyond the reference: an averaged denoiser speaks the latents of an averaged autoencoder.
        self.vae = EMA(unwrap(models.vae), config)
        self.latent_norm = EMA(models.latent_norm, config, buffers=config.statistics)

    def update(self) -> None:
        self.denoiser.update()
        self.vae.update()
        self.latent_norm.update()

    def parts(self) -> dict[str, EMA]:
        return {"ema_denoiser": self.denoiser, "ema_vae": self.vae, "ema_latent_norm": self.latent_norm}


def bundle(name: BundleName, models: Models, averages: Averages) -> Bundle:
    """The named combination; loose parts are never handed out."""
    modules: dict[str, Any] = {
        "denoiser": unwrap(models.denoiser),
        "vae": unwrap(models.vae),
        "latent_norm": models.latent_norm,
        **{part: average.module for part, average in averages.parts().items()},
    }
    return Bundle(name, *(modules[part] for part in BUNDLES[name]))


def latent_health(latent_norm: LatentNorm) -> Metrics:
    """What the normaliser tracks: the standard deviation of latent channels, and batches refused as non-finite.

    Joint training lets the scale drift, which live statistics follow and any fixed ones would not.
    """
    spread = latent_norm.running_var.sqrt()
    refused = latent_norm.refused.float()
    return {"latent_std": spread.mean(), "latent_std_max": spread.max(), "refused_batches": refused}


def named_parts(**parts: Any) -> dict[str, Stateful]:
    """The parts at hand by name, without their data-parallel wrappers; missing players are left out."""
    # Bare modules: the keys of a checkpoint must not show how many processes wrote it.
    return {
        name: unwrap(part) if isinstance(part, nn.Module) else part for name, part in parts.items() if part is not None
    }
