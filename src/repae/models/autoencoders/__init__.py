"""Variational autoencoders behind one interface."""

from repae.models.autoencoders.base import Autoencoder, AutoencoderOutput
from repae.models.autoencoders.kl import KLAutoencoder, KLConfig
from repae.models.autoencoders.tiny import TinyAutoencoder, TinyConfig

__all__ = ["Autoencoder", "AutoencoderOutput", "KLAutoencoder", "KLConfig", "TinyAutoencoder", "TinyConfig"]
