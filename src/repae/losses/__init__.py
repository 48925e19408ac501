"""Losses: functions of tensors, each returning one float32 scalar, or one for each image."""

from repae.losses.adversarial import LeCam, generator_loss, hinge_loss
from repae.losses.alignment import alignment_loss
from repae.losses.autoencoder import AutoencoderLoss, AutoencoderLossConfig
from repae.losses.perceptual import feature_distance, lpips
from repae.losses.quantiser import codebook_loss, commitment_loss
from repae.losses.reconstruction import flow_matching_loss, kl_divergence, reconstruction_loss
from repae.losses.terms import Terms

__all__ = [
    "AutoencoderLoss",
    "AutoencoderLossConfig",
    "LeCam",
    "Terms",
    "alignment_loss",
    "codebook_loss",
    "commitment_loss",
    "feature_distance",
    "flow_matching_loss",
    "generator_loss",
    "hinge_loss",
    "kl_divergence",
    "lpips",
    "reconstruction_loss",
]
