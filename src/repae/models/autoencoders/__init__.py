"""Autoencoders behind one interface."""

from repae.models.autoencoders.base import (
    Autoencoder,
    AutoencoderOutput,
    DeterministicAutoencoder,
    QuantisedAutoencoder,
    VariationalAutoencoder,
)
from repae.models.autoencoders.diffusers import DiffusersConfig
from repae.models.autoencoders.families import DiffusersAutoencoder
from repae.models.autoencoders.kl import KLAutoencoder, KLConfig
from repae.models.autoencoders.tiny import TinyAutoencoder, TinyConfig

__all__ = [
    "Autoencoder",
    "AutoencoderOutput",
    "DeterministicAutoencoder",
    "DiffusersAutoencoder",
    "DiffusersConfig",
    "KLAutoencoder",
    "KLConfig",
    "QuantisedAutoencoder",
    "TinyAutoencoder",
    "TinyConfig",
    "VariationalAutoencoder",
]
