"""Three joint steps of the reference, replayed: every logged loss and gradient norm, and all weights afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from repae.data.batch import Batch
from repae.flow.path import CosinePath, LinearPath
from repae.flow.time import UniformTime
from repae.losses.autoencoder import AutoencoderLoss, AutoencoderLossConfig
from repae.models.backbones.sit import SiT, SiTConfig
from repae.models.denoiser import Denoiser
from repae.models.discriminator import PatchGAN, PatchGANConfig
from repae.models.latent_norm import LatentNorm
from repae.models.reference_keys import (
    discriminator_from_reference,
    discriminator_to_reference,
    kl_config_from_reference,
    sit_from_reference,
    sit_to_reference,
    vae_from_reference,
    vae_to_reference,
)
from repae.runtime.ema import EmaConfig
from repae.runtime.optimise import AdamWConfig, Optimiser
from repae.runtime.precision import Precision
from repae.training.alignment import Alignment
from repae.training.draw import Draw, Randomness
from repae.training.joint import Optimisers
from repae.training.methods import RepaE
from repae.training.methods.repae import RepaEStep
from repae.training.state import Averages, Models

TOLERANCE = 5e-6
FP32 = Precision("fp32", torch.device("cpu"))


class Given:
    """Stands where the teachers stand, and gives the tokens of the recorded step."""

    tokens: tuple[int, ...] = ()
    dims: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.now: list[Tensor] = []

    def __call__(self, images: Tensor, labels: Tensor, indices: Tensor) -> list[Tensor]:
        return self.now


def under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def build(facts: dict[str, Any], before: dict[str, Tensor]) -> RepaEStep:
    sizes = dict(facts["sit"])
    alignment = {name: sizes.pop(name) for name in ("z_dims", "encoder_depth", "projector_dim")}
    momentum = sizes.pop("bn_momentum")
    sizes.pop("decoder_hidden_size")
    denoiser = Denoiser(SiT(SiTConfig(**sizes)), **alignment)
    norm = LatentNorm(sizes["in_channels"], momentum=momentum)
    for module, state in zip((denoiser, norm), sit_from_reference(under(before, "sit."))):
        module.load_state_dict(state)
    vae_config, channels = kl_config_from_reference(under(before, "vae."))
    vae = vae_config.build(channels)
    vae.load_state_dict(vae_from_reference(under(before, "vae.")))
    discriminator = PatchGAN(PatchGANConfig(in_channels=channels, **facts["discriminator"]))
    discriminator.load_state_dict(discriminator_from_reference(under(before, "discriminator.")))
    models = Models(vae.train(), denoiser.train(), norm.train(), discriminator.train(), Given())

    def optimiser(module: torch.nn.Module, lr: float) -> Optimiser:
        config = AdamWConfig(
            lr=lr,
            betas=facts["betas"],
            weight_decay=facts["weight_decay"],
            eps=facts["eps"],
            max_grad_norm=facts["clip_grad_norm"],
        )
        return Optimiser(module.parameters(), config, FP32, total_steps=facts["steps"])

    lr = facts["lr"]
    optimise = Optimisers(
        optimiser(vae, lr["vae"]), optimiser(denoiser, lr["sit"]), optimiser(discriminator, lr["disc"])
    )
    loss = AutoencoderLossConfig(
        reconstruction_loss=facts["reconstruction_loss"],
        perceptual_weight=facts["perceptual_weight"],
        kl_weight=facts["kl_weight"],
        discriminator_start=facts["discriminator_start"],
        discriminator_weight=facts["discriminator_weight"],
        lecam_regularization_weight=facts["lecam_weight"],
        lecam_ema_decay=facts["lecam_ema_decay"],
    )
    method = RepaE(proj_coeff=facts["proj_coeff"], vae_align_proj_coeff=facts["vae_align_proj_coeff"])
    return RepaEStep(
        method,
        models,
        Alignment(method, models.targets, facts["steps"]),
        Averages(models, EmaConfig(decay=facts["ema_decay"], statistics="average")),
        {"linear": LinearPath, "cosine": CosinePath}[facts["path"]](),
        Randomness(0, (1, 1, 1), LinearPath(), UniformTime(), 0.0),
        optimise,
        AutoencoderLoss(loss),
    )


def close(ours: Tensor, theirs: Tensor, what: str) -> None:
    gap = (ours.double().flatten() - theirs.double().flatten()).abs().max()
    assert gap <= TOLERANCE, f"{what} is off by {gap:.1e}"


def test_joint_training_equals_the_reference(
    training_case: str, manifest: dict[str, Any], load: Callable[[str], dict[str, Tensor]]
) -> None:
    """The whole method at once: losses, gradient routing, optimisers, statistics and averages, step after step.

    Equality here fails for a summed alignment, carried-over noise, a thawed table, one clip for all, a discriminator
    in eval mode, a missing update of its statistics, or averages that leave the statistics out.
    """
    facts, recorded = manifest[training_case], load(training_case)
    assert facts["label_dropout"] == 0
    game = build(facts, under(recorded, "before."))
    for number in range(facts["steps"]):
        given = under(recorded, f"step{number}.")
        game.models.targets.now = [given[f"target.{k}"] for k in range(len(facts["sit"]["z_dims"]))]  # type: ignore[attr-defined]
        count = len(given["images"])
        batch = Batch(given["images"], given["labels"].long(), torch.arange(count))
        draw = Draw(given["time"], given["noise"], given["posterior_noise"], torch.zeros(count, dtype=torch.bool))
        metrics = game.update(batch, draw, number)
        for name, value in under(given, "log.").items():
            close(metrics[name], value, f"{name} of step {number}")
    after, m, average = under(recorded, "after."), game.models, game.averages
    ours = {
        "sit.": sit_to_reference(m.denoiser.state_dict(), m.latent_norm.state_dict()),
        "ema.": sit_to_reference(average.denoiser.module.state_dict(), average.latent_norm.module.state_dict()),
        "vae.": vae_to_reference(m.vae.state_dict()),
        "discriminator.": discriminator_to_reference(m.discriminator.state_dict()),
    }
    for prefix, state in ours.items():
        theirs = under(after, prefix)
        assert state.keys() == theirs.keys()
        for name, value in theirs.items():
            close(state[name], value, f"{prefix}{name} after {facts['steps']} steps")
