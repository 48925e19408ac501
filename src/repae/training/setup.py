"""The training half of a recipe: players, objectives and optimisers, as data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from repae.config import Config
from repae.flow.path import AnyPath, LinearPath
from repae.flow.time import AnyTime, UniformTime
from repae.losses.autoencoder import AutoencoderLossConfig
from repae.models.autoencoders import DiffusersConfig, KLConfig, TinyConfig
from repae.models.backbones import AnyBackbone, SiTBackbone
from repae.models.discriminator import PatchGANConfig
from repae.runtime.ema import EmaConfig
from repae.runtime.migration import RENAMED
from repae.runtime.optimise import AdamWConfig
from repae.training.loop import LoopConfig
from repae.training.method import AnyMethod

Vae = Annotated[KLConfig | TinyConfig | DiffusersConfig, Field(discriminator="kind")]


class DiscriminatorConfig(Config):
    """Architecture of the PatchGAN; its input channels follow from the data.

    Attributes:
        ndf: filters of the first layer.
        n_layers: strided layers.
        norm: batch norm over all processes, or ActNorm.
        weights: what it starts from: a run that trained one, safetensors, or the reference's ``.pt``; none is random.
    """

    ndf: int = Field(default=64, ge=1)
    n_layers: int = Field(default=3, ge=1)
    norm: Literal["batch", "act"] = "batch"
    weights: str | None = Field(default=None, min_length=1)

    def patch_gan(self, in_channels: int) -> PatchGANConfig:
        """The full configuration of the discriminator for images of so many channels."""
        return PatchGANConfig(in_channels=in_channels, **self.model_dump(exclude={"weights"}))


class LatentNormConfig(Config):
    """The latent normaliser: nothing else scales or shifts latents.

    On a frozen autoencoder (``repa``) there is nothing to track, and the statistics are always fixed.

    Attributes:
        statistics: the first ones, of the run's own latents (``data``), or those that the autoencoder's authors
            published (``published``: a diffusers autoencoder's scale and shift, means and deviations, or batch norm).
        tracking: ``live`` tracks the latents, ``fixed`` keeps the first statistics.
        eps: added to the variance.
        momentum: weight of a batch in the running statistics.
    """

    statistics: Literal["data", "published"] = "data"
    tracking: Literal["live", "fixed"] = "live"
    eps: float = Field(default=1e-4, gt=0)
    momentum: float = Field(default=0.1, gt=0, le=1)


class OptimisersConfig(Config):
    """One AdamW each; the constants of the published runs are the defaults."""

    denoiser: AdamWConfig = AdamWConfig()
    vae: AdamWConfig = AdamWConfig()
    discriminator: AdamWConfig = AdamWConfig()


class TrainSetup(Config):
    """Everything that shapes the mathematics of a training, the data and the teachers apart."""

    method: AnyMethod
    vae: Vae = KLConfig()
    backbone: AnyBackbone = SiTBackbone()
    discriminator: DiscriminatorConfig | None = DiscriminatorConfig()
    losses: AutoencoderLossConfig = AutoencoderLossConfig()
    latent_norm: LatentNormConfig = LatentNormConfig()
    path: AnyPath = LinearPath()
    time: AnyTime = UniformTime()
    optimisers: OptimisersConfig = OptimisersConfig()
    ema: EmaConfig = EmaConfig()
    seed: int = 0
    loop: LoopConfig = LoopConfig()

    @model_validator(mode="before")
    @classmethod
    def _by_present_names(cls, data: Any) -> Any:
        for old in RENAMED.keys() & data.keys() if isinstance(data, dict) else ():
            fields = list(data[old]) if isinstance(data[old], dict) else []
            old_name, name = (f"{part}.{fields[0]}" if fields else part for part in (old, RENAMED[old]))
            raise ValueError(f"{old_name} is {name} now: --{name.replace('_', '-')}")
        return data
