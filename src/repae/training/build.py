"""From a setup to a step that can train: the players are built, given their modes, wrapped and handed optimisers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import nn

from repae.config import UserError
from repae.losses.autoencoder import AutoencoderLoss
from repae.losses.perceptual import Perceptual
from repae.models.autoencoders import Autoencoder
from repae.models.denoiser import Denoiser
from repae.models.discriminator import PatchGAN
from repae.models.latent_norm import LatentNorm
from repae.models.teachers.targets import Targets, check_tokens
from repae.runtime.ema import EMA
from repae.runtime.optimise import AdamWConfig, Optimiser
from repae.runtime.parallel import wrap
from repae.runtime.precision import Precision
from repae.runtime.seeds import seed_of
from repae.training.alignment import Alignment, SelfTeacher, check_self_teacher
from repae.training.draw import Randomness
from repae.training.methods.configs import Naive, Repa, RepaE, SelfTeacherConfig, VaeOnly
from repae.training.methods.naive import NaiveStep
from repae.training.methods.repa import RepaStep
from repae.training.methods.repae import RepaEStep
from repae.training.methods.vae import VaeStep
from repae.training.objectives import Optimisers
from repae.training.setup import TrainSetup
from repae.training.state import Averages, Models, Step


def latent_side(setup: TrainSetup, resolution: int) -> int:
    """Side of the latent for square images of ``resolution`` pixels.

    Raises:
        UserError: the resolution is not a multiple of the autoencoder's factor times the patch size.
    """
    unit = setup.vae.factor * setup.backbone.patch_size
    if resolution % unit:
        raise UserError(
            f"resolution {resolution} is not a multiple of {unit}, the autoencoder's factor {setup.vae.factor} times "
            f"the patch size {setup.backbone.patch_size}; choose {max(unit, round(resolution / unit) * unit)}"
        )
    return resolution // setup.vae.factor


def build_vae(setup: TrainSetup, image_channels: int) -> Autoencoder:
    """The autoencoder with the initial weights of ``setup.seed``."""
    with _seeded(setup.seed, "vae"):
        return setup.vae.build(image_channels)


def build_discriminator(setup: TrainSetup, image_channels: int) -> PatchGAN | None:
    """The discriminator with the initial weights of ``setup.seed``, where the setup has one that counts."""
    if setup.discriminator is None or setup.losses.discriminator_weight == 0 or setup.losses.discriminator_factor == 0:
        return None
    with _seeded(setup.seed, "discriminator"):
        return PatchGAN(setup.discriminator.patch_gan(image_channels))


def build_models(
    setup: TrainSetup, *, resolution: int, image_channels: int, num_classes: int, targets: Targets
) -> Models:
    """All players with their initial weights, on the current default device.

    Each draws from its own stream of the seed, so that a run with a discriminator starts from the same denoiser as
    one without.

    Raises:
        UserError: sizes that do not fit: resolution, patch, heads, alignment depth, teacher tokens.
    """
    vae = build_vae(setup, image_channels)
    _check_trainable(vae, not isinstance(setup.method, Repa))
    side = latent_side(setup, resolution)
    backbone = setup.backbone
    config = backbone.sized(side, vae.latent_channels, num_classes)
    check_tokens(targets, config.tokens)
    z_dims = targets.dims
    if (own := _self_teacher(setup)) is not None:
        check_self_teacher(own, backbone.encoder_depth, config.depth)
        z_dims = (*z_dims, config.hidden_size)
    with _seeded(setup.seed, "denoiser"):
        denoiser = Denoiser(config.build(), z_dims, backbone.encoder_depth, backbone.projector_dim, backbone.projector)
    norm = LatentNorm(vae.latent_channels, eps=setup.latent_norm.eps, momentum=setup.latent_norm.momentum)
    needs_judge = isinstance(setup.method, (RepaE, Naive))
    discriminator = build_discriminator(setup, image_channels) if needs_judge else None
    return Models(vae, denoiser, norm, discriminator, targets)


def build_step(
    setup: TrainSetup,
    models: Models,
    *,
    perceptual: Perceptual | None,
    precision: Precision,
    device: torch.device,
    compile: bool,  # noqa: A002
) -> Step:
    """The joint, REPA or naive step over ``models``, which are moved, given their modes and wrapped in place.

    ``perceptual`` is the distance of that term. Modes are set here once; the step restores whatever it changes.
    """
    method, loop = setup.method, setup.loop
    joint = not isinstance(method, Repa)
    _prepare(models.vae, device, trained=joint)
    _prepare(models.denoiser, device, trained=True)
    models.latent_norm.to(device).train(joint and setup.latent_norm.tracking == "live")
    if models.discriminator is not None:
        _prepare(models.discriminator, device, trained=True)
    averages = Averages(models, setup.ema)
    channels, side = models.vae.latent_channels, models.denoiser.backbone.config.input_size
    randomness = Randomness(
        setup.seed, (channels, side, side), setup.path, setup.time, models.denoiser.backbone.config.class_dropout_prob
    )

    def optimiser(module: nn.Module, config: AdamWConfig) -> Optimiser:
        return _optimiser(module, config, precision, loop.accumulate, loop.steps)

    assert not isinstance(method, VaeOnly), method
    own = _self_teacher(setup)
    teacher = None if own is None else SelfTeacher(cast(Denoiser, averages.denoiser.module), setup.path, own)
    alignment = Alignment(method, models.targets, loop.steps, teacher)
    models.denoiser = cast(Denoiser, wrap(models.denoiser, compile=compile, device=device))
    denoiser = optimiser(models.denoiser, setup.optimisers.denoiser)
    if isinstance(method, Repa):
        return RepaStep(method, models, alignment, averages, denoiser, setup.path, randomness)
    models.vae = cast(Autoencoder, wrap(models.vae, compile=compile, device=device))
    discriminator = None
    if models.discriminator is not None:
        models.discriminator = wrap(models.discriminator, compile=compile, device=device)
        discriminator = optimiser(models.discriminator, setup.optimisers.discriminator)
    optimise = Optimisers(optimiser(models.vae, setup.optimisers.vae), denoiser, discriminator)
    loss = AutoencoderLoss(setup.losses, perceptual).to(device)
    if isinstance(method, RepaE):
        return RepaEStep(method, models, alignment, averages, optimise, loss, setup.path, randomness)
    return NaiveStep(method, models, alignment, averages, optimise, loss, setup.path, randomness)


def build_vae_step(
    setup: TrainSetup,
    vae: Autoencoder,
    *,
    resolution: int,
    perceptual: Perceptual | None,
    precision: Precision,
    device: torch.device,
    compile: bool,  # noqa: A002
) -> VaeStep:
    """The step that trains an autoencoder and its discriminator, or only the latter."""
    assert isinstance(setup.method, VaeOnly), setup.method
    trained, loop = setup.method.train_autoencoder, setup.loop
    _check_trainable(vae, trained)
    discriminator = build_discriminator(setup, vae.image_channels)
    if discriminator is None and not trained:
        raise UserError(
            "nothing is left to train: method.train_autoencoder is false and there is no discriminator; "
            "give losses.discriminator_weight a value above 0, or train the autoencoder"
        )
    _prepare(vae, device, trained=trained)
    average = EMA(vae, setup.ema)
    side = resolution // vae.factor
    shape = (vae.latent_channels, side, side)
    optimise = optimise_discriminator = None
    if trained:
        vae = cast(Autoencoder, wrap(vae, compile=compile, device=device))
        optimise = _optimiser(vae, setup.optimisers.vae, precision, loop.accumulate, loop.steps)
    if discriminator is not None:
        _prepare(discriminator, device, trained=True)
        discriminator = wrap(discriminator, compile=compile, device=device)
        optimise_discriminator = _optimiser(
            discriminator, setup.optimisers.discriminator, precision, loop.accumulate, loop.steps
        )
    loss = AutoencoderLoss(setup.losses, perceptual).to(device)
    return VaeStep(vae, average, discriminator, optimise, optimise_discriminator, loss, setup.seed, shape)


def _check_trainable(vae: Autoencoder, trained: bool) -> None:
    if trained and not vae.trainable:
        raise UserError(
            "this autoencoder is used frozen and cannot be trained; train a denoiser on it with method.kind 'repa', "
            "or choose another vae"
        )


def _self_teacher(setup: TrainSetup) -> SelfTeacherConfig | None:
    return setup.method.self_teacher if isinstance(setup.method, Repa) else None


def _optimiser(module: nn.Module, config: AdamWConfig, precision: Precision, accumulate: int, steps: int) -> Optimiser:
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return Optimiser(trained, config, precision, accumulate=accumulate, total_steps=steps)


def _prepare(module: nn.Module, device: torch.device, *, trained: bool) -> None:
    module.to(device).train(trained)
    if not trained:
        module.requires_grad_(False)


@contextmanager
def _seeded(seed: int, player: str) -> Iterator[None]:
    """Initial weights as a function of (seed, player), the caller's random state untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "weights", player))
        yield
