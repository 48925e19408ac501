"""Who learns from what: gradient routing, restored flags, fresh randomness, in every method."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from errors import refused
from players import WHOLE, batch, setup, step

from repae.config import UserError
from repae.flow.path import LinearPath
from repae.training.draw import Draw
from repae.training.methods import Naive, Repa, RepaE

PLAYERS = ("vae", "denoiser", "discriminator")


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.named_parameters()}


def flags(game: Any) -> list[tuple[bool, bool]]:
    m = game.models
    return [
        (parameter.requires_grad, module.training)
        for player in (m.vae, m.denoiser, m.discriminator, m.latent_norm)
        for module in player.modules()
        for parameter in [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    ]


class Recorder:
    """Stands for an optimiser and notes what its loss would move."""

    def __init__(self, game: Any) -> None:
        self.game = game
        self.moved: list[set[str]] = []

    def __call__(self, loss: torch.Tensor) -> torch.Tensor:
        models = self.game.models
        for name in PLAYERS:
            getattr(models, name).zero_grad(set_to_none=True)
        loss.backward()
        self.moved.append(
            {
                name
                for name in PLAYERS
                if any(p.grad is not None and p.grad.any() for p in getattr(models, name).parameters())
            }
        )
        return loss.detach()


def test_each_update_of_the_joint_step_moves_its_own_player_only() -> None:
    """VAE, discriminator, denoiser, in this order; each objective's gradient reaches exactly one of them."""
    game = step(setup())
    recorder = Recorder(game)
    game.optimise.vae = game.optimise.discriminator = game.optimise.denoiser = recorder
    game(batch(), 0, WHOLE)
    assert recorder.moved == [{"vae"}, {"discriminator"}, {"denoiser"}]


def test_the_alignment_alone_reaches_the_autoencoder_and_the_diffusion_loss_never_does() -> None:
    """The stop-gradient of the method: with all other terms silent the VAE still hears the alignment."""
    config = setup(**{"losses.reconstruction_weight": 0, "losses.kl_weight": 0, "losses.discriminator_weight": 0})
    game = step(config)
    seen: list[float] = []

    def vae(loss: torch.Tensor) -> torch.Tensor:
        loss.backward()
        # The decoder hears nothing: alignment acts on the latent, before it.
        assert all(p.grad is None or not p.grad.any() for p in game.models.vae.model.decoder.parameters())
        seen.append(
            sum(float(p.grad.abs().sum()) for p in game.models.vae.model.encoder.parameters() if p.grad is not None)
        )
        return loss.detach()

    def denoiser(loss: torch.Tensor) -> torch.Tensor:
        game.models.vae.zero_grad(set_to_none=True)
        loss.backward()
        assert all(p.grad is None for p in game.models.vae.parameters())
        return loss.detach()

    game.optimise.vae, game.optimise.denoiser = vae, denoiser
    game(batch(), 0, WHOLE)
    assert seen[0] > 0


@pytest.mark.parametrize("method", [RepaE(), Naive(), Naive(proj_coeff=0.5, vae_align_proj_coeff=1.5)])
def test_flags_and_modes_are_restored_and_the_position_table_is_constant(method: Any) -> None:
    """Freezing restores what it found: nothing thaws, nothing stays frozen, no mode changes, over several steps."""
    game = step(setup(method=method))
    table = game.models.denoiser.backbone.pos_embed.clone()
    before = flags(game)
    for number in range(3):
        game(batch(number), number, WHOLE)
        assert flags(game) == before
    assert torch.equal(game.models.denoiser.backbone.pos_embed, table)
    assert "backbone.pos_embed" not in dict(game.models.denoiser.named_parameters())


@pytest.mark.parametrize("method", [RepaE(), Naive(), Repa(), Repa(proj_coeff=0)])
def test_who_moves_in_each_method(method: Any) -> None:
    """REPA leaves the autoencoder untouched to the bit; the joint methods move all players; averages follow."""
    game = step(setup(method=method))
    joint = not isinstance(method, Repa)
    before = weights(game.models.vae), weights(game.models.denoiser), game.models.latent_norm.running_mean.clone()
    metrics = game(batch(), 0, WHOLE)
    assert all(value.isfinite() for value in metrics.values())
    vae_moved = any(not torch.equal(before[0][name], p) for name, p in game.models.vae.named_parameters())
    sit_moved = any(not torch.equal(before[1][name], p) for name, p in game.models.denoiser.named_parameters())
    assert (vae_moved, sit_moved) == (joint, True)
    assert torch.equal(before[2], game.models.latent_norm.running_mean) == (not joint)
    assert game.averages.denoiser.count == 1


def test_the_latent_norm_moves_in_the_denoisers_pass_and_not_in_the_autoencoders() -> None:
    """Exactly one update of the running statistics per step, from the batch that the denoiser trains on."""
    game = step(setup())
    game(batch(), 0, WHOLE)
    assert int(game.models.latent_norm.num_batches_tracked) == 1


def test_the_discriminator_stays_in_train_mode_and_receives_three_updates_of_its_statistics() -> None:
    """Frozen is not eval: generator pass, real, fake. Two while the generator term is silent."""
    game = step(setup(**{"losses.discriminator_start": 1}))
    norm = next(m for m in game.models.discriminator.modules() if isinstance(m, torch.nn.BatchNorm2d))
    game(batch(), 0, WHOLE)
    assert int(norm.num_batches_tracked) == 2
    game(batch(), 1, WHOLE)
    assert int(norm.num_batches_tracked) == 5


def test_time_and_noise_are_fresh_in_every_batch_and_shared_by_its_two_passes() -> None:
    """Carried over from the last batch they would be memorised; different in the two passes they would not agree."""
    game = step(setup())
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Spy(LinearPath):
        def sample(self, x: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> Any:
            seen.append((noise.clone(), t.clone()))
            return super().sample(x, noise, t)

    game.path = Spy()
    for number in range(2):
        game(batch(), number, WHOLE)
    (a, s), (b, t), (c, u), (d, v) = seen
    assert torch.equal(a, b) and torch.equal(s, t) and torch.equal(c, d) and torch.equal(u, v)
    assert not torch.equal(a, c) and not torch.equal(s, u)
    assert len(set(s.tolist())) == len(s), "every image has its own time"


def test_labels_are_dropped_for_the_denoiser_and_never_for_the_alignment_pass() -> None:
    """The alignment pass sees true labels; a denoiser trained without dropped labels could not be guided."""
    game = step(setup())
    calls: list[Any] = []
    denoiser = game.models.denoiser
    embed = denoiser.backbone.embed

    def spy(x: Any, t: Any, y: Any, drop: Any = None) -> Any:
        calls.append((drop, denoiser.backbone.training))
        return embed(x, t, y, drop)

    denoiser.backbone.embed = spy
    game(batch(), 0, WHOLE)
    assert calls[0] == (None, False)
    assert calls[1][0] is not None and calls[1][1]


def test_a_non_finite_batch_leaves_the_statistics_and_the_weights_alone() -> None:
    """One infinite latent must not poison running statistics for ever, nor any weight."""
    game = step(setup())
    game(batch(), 0, WHOLE)
    statistics = game.models.latent_norm.running_mean.clone(), game.models.latent_norm.running_var.clone()
    before = weights(game.models.vae), weights(game.models.denoiser)
    draw: Draw = game.randomness(1, 8, WHOLE, torch.device("cpu"))
    draw.posterior_noise[0, 0, 0, 0] = float("inf")
    metrics = game.update(batch(), draw, 1)
    assert not metrics["sit_loss"].isfinite()
    assert int(game.models.latent_norm.refused) == 1
    assert torch.equal(statistics[0], game.models.latent_norm.running_mean)
    assert torch.equal(statistics[1], game.models.latent_norm.running_var)
    for player, old in zip((game.models.vae, game.models.denoiser), before, strict=True):
        assert all(torch.equal(old[name], p) for name, p in player.named_parameters())


def test_alignment_without_teachers_is_refused_in_words() -> None:
    """REPA-E without a teacher has nothing to align to; plain SiT has nothing to project."""
    game = step(setup(), aligned=False)
    with refused(UserError, "0 projections", "at least one teacher"):
        game(batch(), 0, WHOLE)


def test_the_discriminator_does_not_change_where_the_denoiser_starts() -> None:
    """Arms of a comparison start from the same weights whichever players take part."""
    with_gan, without = step(setup()), step(setup(**{"losses.discriminator_weight": 0}))
    assert without.models.discriminator is None
    for (name, a), (_, b) in zip(
        with_gan.models.denoiser.named_parameters(), without.models.denoiser.named_parameters(), strict=True
    ):
        assert torch.equal(a, b), name
