"""Every family of autoencoders in the step that it is for: joint training, or REPA on a frozen one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from errors import refused
from families import DETERMINISTIC, TRAINABLE, config
from players import WHOLE, batch, setup, step

from repae.config import UserError
from repae.models.autoencoders import DiffusersConfig, KLConfig
from repae.models.teachers.targets import NoTargets
from repae.runtime.optimise import AdamWConfig
from repae.training.methods import Naive, Repa, RepaE, VaeOnly

SMALL = {
    "f8d4": KLConfig(base_channels=32, channel_multipliers=(1, 1, 1), blocks_per_level=1),
    "f16d32": KLConfig(base_channels=32, channel_multipliers=(1, 1, 1), blocks_per_level=1, attention_levels=(2,)),
}
FAST = AdamWConfig(lr=1e-3)
STEPS = 10


def game(vae: Any, **changes: Any) -> Any:
    return step(setup(vae=vae, **changes))


def train(play: Any) -> tuple[dict[str, float], dict[str, float]]:
    """First and last figures on one batch of plain colours, with the same times and noises in every step."""
    whole = batch()
    whole = whole._replace(images=whole.images[..., :1, :1].expand_as(whole.images).contiguous())
    draw = play.randomness(0, len(whole.images), WHOLE, torch.device("cpu"))
    log = [{name: float(value) for name, value in play.update(whole, draw, 0).items()} for _ in range(STEPS)]
    return log[0], log[-1]


@pytest.mark.parametrize("name", [*SMALL, *TRAINABLE])
def test_the_joint_step_lowers_its_losses(name: str) -> None:
    """Autoencoder and denoiser both learn, whatever bounds the latent, and every player takes part."""
    vae = SMALL.get(name) or config(name)
    changes = {"optimisers.vae": FAST, "optimisers.denoiser": FAST, "losses.lecam_regularization_weight": 0.0}
    play = game(vae, **changes)
    first, last = train(play)
    assert ("kl_loss" in first) == (name not in DETERMINISTIC)
    assert ("quantizer_loss" in first) == ("codebook_loss" in first) == (name == "vq")
    assert last["reconstruction_loss"] < first["reconstruction_loss"]
    assert last["vae_align_loss"] < first["vae_align_loss"]
    assert last["sit_loss"] < first["sit_loss"]
    assert all(torch.tensor(value).isfinite() for value in last.values())
    summed = ["reconstruction_loss", "perceptual_loss", "kl_loss", "quantizer_loss", "weighted_gan_loss"]
    total = sum(first.get(term, 0.0) for term in summed) + 1.5 * first["vae_align_loss"]
    assert first["vae_loss"] == pytest.approx(total, rel=1e-5)


def test_repa_on_a_frozen_rae() -> None:
    """The denoiser learns on tokens of a pretrained encoder; the autoencoder keeps every bit."""
    play = game(config("rae"), method=Repa(), **{"optimisers.denoiser": FAST})
    before = {key: value.clone() for key, value in play.models.vae.state_dict().items()}
    first, last = train(play)
    assert last["sit_loss"] < first["sit_loss"] and last["proj_loss"] < first["proj_loss"]
    assert all(torch.equal(value, before[key]) for key, value in play.models.vae.state_dict().items())


@pytest.mark.parametrize("method", [RepaE(), Naive()])
def test_an_rae_is_not_trained(method: Any) -> None:
    """Refused when the players are built, with the method that it is for."""
    with refused(UserError, "frozen", "method.kind 'repa'"):
        game(config("rae"), method=method)


def test_only_the_codebooks_term_moves_the_codebook() -> None:
    """The denoiser's and the alignment's gradients meet latents before they are quantised."""
    changes = {"losses.quantizer_weight": 0.0, "losses.discriminator_weight": 0.0}
    for weight, moves in ((0.0, False), (1.0, True)):
        play = game(config("vq"), **(changes | {"losses.quantizer_weight": weight}))
        book = play.models.vae.model.quantize.embedding.weight
        before = book.detach().clone()
        play(batch(), 0, WHOLE)
        assert torch.equal(before, book) != moves


def test_a_codebook_in_the_autoencoders_own_training() -> None:
    """The VAE-only step knows it too."""
    from repae.runtime.precision import Precision
    from repae.training.build import StepBuilder, build_players

    cpu = torch.device("cpu")
    made = setup(vae=config("vq"), method=VaeOnly(), **{"optimisers.vae": FAST, "losses.discriminator_weight": 0.0})
    players = build_players(made, resolution=16, image_channels=3, num_classes=3, targets=NoTargets())
    play = made.method.build(players, StepBuilder(made, Precision("fp32", cpu), cpu))
    log = [play(batch(), 0, WHOLE) for _ in range(STEPS)]
    assert "quantizer_loss" in log[0] and log[-1]["vae_loss"] < log[0]["vae_loss"]


def test_a_setup_names_any_of_them() -> None:
    """The kind stands in the configuration, and the architecture survives its file."""
    made = setup(vae=config("qwen"))
    assert isinstance(made.vae, DiffusersConfig) and type(made).model_validate_json(made.model_dump_json()) == made
