"""The networks: backbones and their projectors, the latent normaliser, autoencoders, the discriminator, teachers.

They return tensors; none of them knows a loss, a path or an optimiser.
"""

from repae.models.actnorm import ActNorm
from repae.models.autoencoders import (
    Autoencoder,
    AutoencoderOutput,
    DeterministicAutoencoder,
    DiffusersAutoencoder,
    DiffusersConfig,
    KLAutoencoder,
    KLConfig,
    QuantisedAutoencoder,
    TinyAutoencoder,
    TinyConfig,
    VariationalAutoencoder,
)
from repae.models.backbones import Backbone, LightningConfig, LightningDiT, SiT, SiTConfig
from repae.models.bundle import Bundle
from repae.models.denoiser import Denoiser
from repae.models.discriminator import GlobalBatchNorm2d, PatchGAN, PatchGANConfig, weights_init
from repae.models.latent_norm import LatentNorm
from repae.models.projector import Projector
from repae.models.teachers.base import Teacher
from repae.models.teachers.extract import extract_visual_features, load_teachers

__all__ = [
    "ActNorm",
    "Autoencoder",
    "AutoencoderOutput",
    "Backbone",
    "Bundle",
    "Denoiser",
    "DeterministicAutoencoder",
    "DiffusersAutoencoder",
    "DiffusersConfig",
    "GlobalBatchNorm2d",
    "KLAutoencoder",
    "KLConfig",
    "LatentNorm",
    "LightningConfig",
    "LightningDiT",
    "PatchGAN",
    "PatchGANConfig",
    "Projector",
    "QuantisedAutoencoder",
    "SiT",
    "SiTConfig",
    "Teacher",
    "TinyAutoencoder",
    "TinyConfig",
    "VariationalAutoencoder",
    "extract_visual_features",
    "load_teachers",
    "weights_init",
]
