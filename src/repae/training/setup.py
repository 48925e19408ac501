"""The training half of a recipe: players, objectives and optimisers, as data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from repae.config import Config
from repae.flow.path import AnyPath, LinearPath
from repae.flow.time import AnyTime, UniformTime
from repae.losses.autoencoder import AutoencoderLossConfig
from repae.models.autoencoders import DiffusersConfig, KLConfig, TinyConfig
from repae.models.backbones.sit import SiTConfig
from repae.models.discriminator import PatchGANConfig
from repae.models.projector import MLP, AnyProjector
from repae.runtime.ema import EmaConfig
from repae.runtime.optimise import AdamWConfig
from repae.training.loop import LoopConfig
from repae.training.methods.configs import Method, RepaE

Vae = Annotated[KLConfig | TinyConfig | DiffusersConfig, Field(discriminator="kind")]


class GeneratorConfig(Config):
    """Architecture of the denoiser; its input size, channels and classes follow from the data and the autoencoder.

    ``encoder_depth`` is the 1-based number of the block whose tokens are aligned. ``projector_dim`` is the width of the
    hidden layers of an MLP projector; a convolution has none.
    """

    patch_size: int = Field(default=2, ge=1)
    hidden_size: int = Field(default=1152, ge=1)
    depth: int = Field(default=28, ge=1)
    num_heads: int = Field(default=16, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)
    class_dropout_prob: float = Field(default=0.1, ge=0, lt=1)
    qk_norm: bool = False
    fused_attn: bool = True
    encoder_depth: int = Field(default=8, ge=1)
    projector_dim: int = Field(default=2048, ge=1)
    projector: AnyProjector = MLP

    @classmethod
    def preset(cls, name: str, **changes: object) -> GeneratorConfig:
        """The published sizes by name, such as ``SiT-XL/2``."""
        model = SiTConfig.preset(name)
        sizes = {key: getattr(model, key) for key in ("patch_size", "hidden_size", "depth", "num_heads")}
        return cls.model_validate({**sizes, **changes})

    def sit(self, input_size: int, in_channels: int, num_classes: int) -> SiTConfig:
        """The full configuration of the transformer for given latents and classes."""
        own = self.model_dump(exclude={"encoder_depth", "projector_dim", "projector"})
        return SiTConfig(input_size=input_size, in_channels=in_channels, num_classes=num_classes, **own)


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

    method: Method = RepaE()
    vae: Vae = KLConfig()
    sit: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig | None = DiscriminatorConfig()
    losses: AutoencoderLossConfig = AutoencoderLossConfig()
    latent_norm: LatentNormConfig = LatentNormConfig()
    path: AnyPath = LinearPath()
    time: AnyTime = UniformTime()
    optimisers: OptimisersConfig = OptimisersConfig()
    ema: EmaConfig = EmaConfig()
    seed: int = 0
    loop: LoopConfig = LoopConfig()
