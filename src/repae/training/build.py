"""From a setup to players with initial weights, and the parts that a method builds its step of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias, cast

import torch
from torch import nn
from typing_extensions import Unpack

from repae.config import UserError
from repae.flow.path import Path
from repae.losses.autoencoder import AutoencoderLoss
from repae.losses.perceptual import Perceptual
from repae.models.autoencoders import Autoencoder
from repae.models.denoiser import Denoiser
from repae.models.discriminator import PatchGAN
from repae.models.latent_norm import LatentNorm
from repae.models.teachers.targets import Targets, check_tokens
from repae.runtime.optimise import AdamWConfig, Optimiser
from repae.runtime.parallel import ParallelPlan, StackedT, parallelise, unwrap
from repae.runtime.precision import Precision
from repae.runtime.seeds import seed_of
from repae.training.alignment import AlignedMethod, Alignment, SelfTeacher, check_self_teacher
from repae.training.draw import Randomness
from repae.training.joint import Optimisers
from repae.training.setup import TrainSetup
from repae.training.state import Averages, Models, Players


def latent_side(setup: TrainSetup, resolution: int) -> int:
    """Side of the latent for square images of ``resolution`` pixels.

    Raises:
        UserError: the resolution is not a multiple of the autoencoder's factor, or, where there is a denoiser, of that
            times the patch size.
    """
    unit, why = setup.vae.factor, "the autoencoder's factor"
    if setup.method.traits.generates:
        unit *= setup.backbone.patch_size
        why = f"{why} {setup.vae.factor} times the patch size {setup.backbone.patch_size}"
    if resolution % unit:
        raise UserError(
            f"resolution {resolution} is not a multiple of {unit}, {why}; "
            f"choose {max(unit, round(resolution / unit) * unit)}"
        )
    return resolution // setup.vae.factor


def build_vae(setup: TrainSetup, image_channels: int) -> Autoencoder:
    """The autoencoder with the initial weights of ``setup.seed``."""
    with _seeded(setup.seed, "vae"):
        return setup.vae.build(image_channels)


def build_discriminator(setup: TrainSetup, image_channels: int) -> PatchGAN | None:
    """The discriminator with the initial weights of ``setup.seed``, where the setup has one that counts."""
    # With a weight of 0 nobody reads its logits; building it would cost memory for nothing.
    if setup.discriminator is None or setup.losses.discriminator_weight == 0 or setup.losses.discriminator_factor == 0:
        return None
    with _seeded(setup.seed, "discriminator"):
        return PatchGAN(setup.discriminator.patch_gan(image_channels))


def build_players(
    setup: TrainSetup, *, resolution: int, image_channels: int, num_classes: int, targets: Targets
) -> Players:
    """The networks that the method needs, with their initial weights, on the current default device.

    Each draws from its own stream of the seed, so that a run with a discriminator starts from the same denoiser as
    one without.

    Raises:
        UserError: sizes that do not fit (resolution, patch, heads, depth, teacher tokens), or nothing to train.
    """
    traits = setup.method.traits
    vae = build_vae(setup, image_channels)
    if "vae" in traits.trains and not vae.trainable:
        raise UserError(
            "this autoencoder is used frozen and cannot be trained; train a denoiser on it with method.kind 'repa', "
            "or choose another vae"
        )
    discriminator = build_discriminator(setup, image_channels) if "discriminator" in traits.players else None
    if discriminator is None and traits.trains == {"discriminator"}:
        raise UserError(
            "nothing is left to train: method.train_autoencoder is false and there is no discriminator; "
            "give losses.discriminator_weight a value above 0, or train the autoencoder"
        )
    side = latent_side(setup, resolution)
    if not traits.generates:
        return Players(vae, None, None, discriminator, targets, (vae.latent_channels, side, side))
    denoiser = build_denoiser(setup, side, vae.latent_channels, num_classes, targets)
    norm = LatentNorm(vae.latent_channels, eps=setup.latent_norm.eps, momentum=setup.latent_norm.momentum)
    return Players(vae, denoiser, norm, discriminator, targets, (vae.latent_channels, side, side))


def build_denoiser(setup: TrainSetup, side: int, channels: int, num_classes: int, targets: Targets) -> Denoiser:
    """The denoiser of latents of so many channels, with the initial weights of ``setup.seed``."""
    backbone = setup.backbone
    config = backbone.sized(side, channels, num_classes)
    check_tokens(targets, config.tokens)
    z_dims = targets.dims
    if (own := setup.method.traits.self_teacher) is not None:
        check_self_teacher(own, backbone.encoder_depth, config.depth)
        # Its targets are tokens of the backbone, hence as wide; last, as in the list of targets that a step makes.
        z_dims = (*z_dims, config.hidden_size)
    with _seeded(setup.seed, "denoiser"):
        return Denoiser(config.build(), z_dims, backbone.encoder_depth, backbone.projector_dim, backbone.projector)


DenoiserParts: TypeAlias = tuple[Models, Alignment, Averages, Path, Randomness]
"""What a `DenoiserStep` is made of, its method apart."""


@dataclass(frozen=True)
class StepBuilder:
    """What a method builds its step with: where and how to compute, and the parts that steps have in common.

    Attributes:
        compile: the repeated parts of what is trained.
        perceptual: the distance of that term, where it counts.
    """

    setup: TrainSetup
    precision: Precision
    device: torch.device
    compile: bool = False
    perceptual: Perceptual | None = None

    def prepare(self, module: nn.Module, *, trained: bool) -> None:
        """Moves a player to its device and sets its mode for good."""
        module.to(self.device).train(trained)
        if not trained:
            module.requires_grad_(False)

    def trained(self, module: StackedT, config: AdamWConfig) -> tuple[StackedT, Optimiser]:
        """A prepared player, compiled and parallel as the run asks, and its optimiser."""
        made = parallelise(module, ParallelPlan(self.device, self.compile))
        parameters = [parameter for parameter in made.parameters() if parameter.requires_grad]
        loop = self.setup.loop
        return made, Optimiser(parameters, config, self.precision, accumulate=loop.accumulate, total_steps=loop.steps)

    def adversary(self, players: Players) -> tuple[nn.Module | None, Optimiser | None]:
        """The discriminator, prepared and wrapped, and its optimiser, where there is one."""
        if players.discriminator is None:
            return None, None
        self.prepare(players.discriminator, trained=True)
        return self.trained(players.discriminator, self.setup.optimisers.discriminator)

    def loss(self) -> AutoencoderLoss:
        return AutoencoderLoss(self.setup.losses, self.perceptual).to(self.device)

    def denoising(self, method: AlignedMethod, players: Players) -> tuple[Unpack[DenoiserParts], Optimiser]:
        """What a step on a frozen autoencoder is made of, its method apart."""
        models = self._models(method, players)
        models.denoiser, optimise = self.trained(models.denoiser, self.setup.optimisers.denoiser)
        return *self._parts(method, models, players), optimise

    def joint(
        self, method: AlignedMethod, players: Players
    ) -> tuple[Unpack[DenoiserParts], Optimisers, AutoencoderLoss]:
        """What a `JointStep` is made of, its method apart."""
        models = self._models(method, players)
        models.denoiser, denoiser = self.trained(models.denoiser, self.setup.optimisers.denoiser)
        models.vae, vae = self.trained(models.vae, self.setup.optimisers.vae)
        models.discriminator, discriminator = self.adversary(players)
        return *self._parts(method, models, players), Optimisers(vae, denoiser, discriminator), self.loss()

    def _models(self, method: AlignedMethod, players: Players) -> Models:
        """The players of a step with a denoiser, prepared."""
        assert players.denoiser is not None and players.latent_norm is not None, method
        models = Models(players.vae, players.denoiser, players.latent_norm, players.discriminator, players.targets)
        joint = "vae" in method.traits.trains
        self.prepare(models.vae, trained=joint)
        self.prepare(models.denoiser, trained=True)
        # Train mode is what moves the statistics; a frozen autoencoder gives them nothing to follow.
        models.latent_norm.to(self.device).train(joint and self.setup.latent_norm.tracking == "live")
        return models

    def _parts(self, method: AlignedMethod, models: Models, players: Players) -> DenoiserParts:
        """The models, when they are what they will be trained as, and what reads them."""
        setup = self.setup
        averages = Averages(models, setup.ema)
        # The draw decides whose label is dropped, not the network, so it must know the probability.
        dropout = unwrap(models.denoiser).backbone.config.class_dropout_prob
        randomness = Randomness(setup.seed, players.latent_shape, setup.path, setup.time, dropout)
        own = method.traits.self_teacher
        # The average, not the network in training: a target must move more slowly than what chases it.
        teacher = None if own is None else SelfTeacher(cast(Denoiser, averages.denoiser.module), setup.path, own)
        alignment = Alignment(method, models.targets, setup.loop.steps, teacher)
        return models, alignment, averages, setup.path, randomness


@contextmanager
def _seeded(seed: int, player: str) -> Iterator[None]:
    """Initial weights as a function of (seed, player), the caller's random state untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "weights", player))
        yield
