"""A joint game small enough for a test: real autoencoder, SiT and PatchGAN, two teachers of given tokens."""

from __future__ import annotations

from typing import Any

import torch

from repae.data.batch import Batch
from repae.losses.autoencoder import AutoencoderLossConfig
from repae.models.autoencoders import KLConfig
from repae.models.backbones import SiTBackbone
from repae.models.teachers.targets import CachedTargets, NoTargets
from repae.runtime.ema import EmaConfig
from repae.runtime.optimise import AdamWConfig
from repae.runtime.precision import Precision
from repae.runtime.seeds import Share
from repae.training.build import StepBuilder, build_players
from repae.training.loop import LoopConfig
from repae.training.methods import RepaE
from repae.training.setup import DiscriminatorConfig, OptimisersConfig, TrainSetup

CPU = torch.device("cpu")
RESOLUTION, IMAGES, CLASSES = 16, 8, 3
WHOLE = Share(0, 1, 0, 1)
ADAMW = AdamWConfig(lr=1e-3, eps=1e-4)


def setup(**changes: Any) -> TrainSetup:
    """Three little players; every field can be changed by its dotted name."""
    base = TrainSetup(
        method=RepaE(),
        vae=KLConfig(latent_channels=4, base_channels=32, channel_multipliers=(1, 1, 1), blocks_per_level=1),
        backbone=SiTBackbone(
            patch_size=2,
            hidden_size=32,
            depth=3,
            num_heads=2,
            class_dropout_prob=0.3,
            encoder_depth=2,
            projector_dim=16,
        ),
        discriminator=DiscriminatorConfig(ndf=8, n_layers=2),
        losses=AutoencoderLossConfig(perceptual_weight=0, lecam_regularization_weight=0.05),
        optimisers=OptimisersConfig(denoiser=ADAMW, vae=ADAMW, discriminator=ADAMW),
        ema=EmaConfig(decay=0.9),
        loop=LoopConfig(steps=3, batch_size=IMAGES),
    )
    return base.replace(**changes)


def tokens(side: int = 2) -> list[torch.Tensor]:
    """Fixed teacher tokens of two teachers for every image."""
    source = torch.Generator().manual_seed(3)
    return [torch.randn(IMAGES, side * side, width, generator=source) for width in (6, 10)]


def batch(seed: int = 0) -> Batch:
    """All images of the little data set."""
    source = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (IMAGES, 3, RESOLUTION, RESOLUTION), generator=source, dtype=torch.uint8)
    return Batch(images, torch.arange(IMAGES) % CLASSES, torch.arange(IMAGES))


def step(config: TrainSetup, *, precision: str = "fp32", aligned: bool = True, device: torch.device = CPU) -> Any:
    """The step of ``config``, its adaLN and final layers moved off zero so that every gradient is alive."""
    players = build_players(
        config,
        resolution=RESOLUTION,
        image_channels=3,
        num_classes=CLASSES,
        targets=CachedTargets([table.to(device) for table in tokens()]) if aligned else NoTargets(),
    )
    assert players.denoiser is not None and players.latent_norm is not None
    source = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in players.denoiser.parameters():
            if not parameter.any():
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=source))
    channels = players.latent_norm.channels
    players.latent_norm.set_statistics(torch.full((channels,), 0.1), torch.full((channels,), 0.7))
    return config.method.build(players, StepBuilder(config, Precision(precision, device), device))
