"""What is aligned to, when and how strongly: schedules, normalised tokens, the denoiser as its own teacher."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from errors import refused
from players import IMAGES, WHOLE, batch, step, tokens
from players import setup as with_discriminator

from repae.config import UserError
from repae.losses.alignment import alignment_loss
from repae.models.projector import ConvProjectorConfig
from repae.models.teachers.targets import SpatialNormConfig, spatially_normalised
from repae.runtime.schedules import Constant, Until
from repae.training.method import SelfTeacherConfig
from repae.training.methods import Naive, Repa, RepaE

ENDING = Until(stop=2, fall_steps=1)
OWN = SelfTeacherConfig(depth=3, interval=0.4)
NORM = SpatialNormConfig(gamma=0.5)


def setup(**changes: Any) -> Any:
    """Without a discriminator, which has no part in this."""
    return with_discriminator(**{"losses.discriminator_weight": 0, **changes})


def state(game: Any) -> dict[str, torch.Tensor]:
    """Weights and statistics of the game, by name."""
    m = game.models
    return {
        f"{player}.{name}": tensor.clone()
        for player in ("vae", "denoiser", "latent_norm")
        for name, tensor in getattr(m, player).state_dict().items()
    }


def naive(**fields: Any) -> Naive:
    return Naive(**({"proj_coeff": 0.5, "vae_align_proj_coeff": 1.5} | fields))


@pytest.mark.parametrize("method", [RepaE, Repa, naive])
def test_once_it_is_over_no_teacher_is_asked_and_the_log_keeps_its_shape(method: Any) -> None:
    """From the stop step on: no tokens, no alignment pass, terms of exactly 0 under the same names."""
    game = step(setup(method=method(align_schedule=ENDING)))
    asked: list[int] = []
    targets, project = game.models.targets, game.models.denoiser.project

    def count(*arguments: Any) -> Any:
        asked.append(number)
        return type(targets).__call__(targets, *arguments)

    object.__setattr__(game.alignment, "targets", count)
    game.models.denoiser.project = lambda *arguments: asked.append(100 + number) or project(*arguments)
    rows = []
    for number in range(4):
        rows.append(game(batch(number), number, WHOLE))
    assert [number for number in asked if number < 100] == [0, 1]
    assert [number for number in asked if number >= 100] == ([100, 101] if method is RepaE else [])
    assert all(row.keys() == rows[0].keys() for row in rows)
    assert [float(row["align_factor"]) for row in rows] == [1.0, 0.5, 0.0, 0.0]
    for name in {"proj_loss", "vae_align_loss"} & rows[0].keys():
        assert [float(row[name]) != 0 for row in rows] == [True, True, False, False]


@pytest.mark.parametrize("method", [RepaE, naive])
def test_the_weight_is_the_coefficient_times_the_factor(method: Any) -> None:
    """Half way down the weights are half; at the end the step is the one without alignment, to the bit."""
    coefficients = {"proj_coeff": 0.5, "vae_align_proj_coeff": 1.5}
    for number, factor in ((1, 0.5), (2, 0.0)):
        scheduled = step(setup(method=method(**coefficients, align_schedule=ENDING)))
        plain = step(setup(method=method(**{name: factor * value for name, value in coefficients.items()})))
        one, other = scheduled(batch(), number, WHOLE), plain(batch(), number, WHOLE)
        for name in ("sit_loss", "vae_loss", "grad_norm_sit", "grad_norm_vae"):
            assert torch.equal(one[name], other[name]), name
        mine, theirs = state(scheduled), state(plain)
        assert all(torch.equal(value, theirs[name]) for name, value in mine.items())


@pytest.mark.parametrize("method", [RepaE(align_schedule=ENDING), Repa(align_schedule=ENDING, self_teacher=OWN)])
def test_going_on_is_exact_across_the_end(method: Any) -> None:
    """A checkpoint on either side of the stop step leads to the same weights: nothing of a schedule is saved."""
    whole = step(setup(method=method))
    for number in range(3):
        whole(batch(number), number, WHOLE)
    for stop in (1, 2):
        first, second = step(setup(method=method)), step(setup(method=method, seed=1))
        for number in range(stop):
            first(batch(number), number, WHOLE)
        second.randomness.seed = 0
        for name, part in second.parts().items():
            part.load_state_dict(first.parts()[name].state_dict())
        for number in range(stop, 3):
            second(batch(number), number, WHOLE)
        assert all(torch.equal(value, state(whole)[name]) for name, value in state(second).items())


def test_without_a_schedule_nothing_changes() -> None:
    """The default is the constant weight of the published runs."""
    assert RepaE().align_schedule == Repa().align_schedule == Constant()
    assert step(setup()).alignment.factor(10**9) == 1.0


@pytest.mark.parametrize("gamma", [0.0, 0.6, 1.0])
def test_spatial_normalisation_in_closed_form(gamma: float) -> None:
    """Channel by channel over the places of one image: a share of the mean off, then unit deviation (iREPA)."""
    given = torch.randn(3, 9, 4) * 5 + 2
    made = spatially_normalised(given, SpatialNormConfig(gamma=gamma))
    for image in range(3):
        for channel in range(4):
            values = given[image, :, channel].double()
            mean = values.sum() / 9
            std = ((values - mean).square().sum() / 8).sqrt()
            expected = ((values - gamma * mean) / std).float()
            torch.testing.assert_close(made[image, :, channel], expected, rtol=1e-4, atol=1e-4)
    flat = spatially_normalised(torch.ones(1, 4, 2), SpatialNormConfig(gamma=1))
    assert torch.equal(flat, torch.zeros(1, 4, 2)), "tokens that are all equal must not become NaN"


@pytest.mark.parametrize("method", [RepaE, Repa, naive])
def test_every_method_aligns_to_normalised_tokens(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call of the loss, for the autoencoder and for the denoiser, sees the teachers' tokens normalised."""
    seen: list[Any] = []
    for module in ("objectives", "methods.repae", "methods.naive"):
        spy = lambda p, z: seen.append(z) or alignment_loss(p, z)  # noqa: E731
        monkeypatch.setattr(f"repae.training.{module}.alignment_loss", spy)
    step(setup(method=method(spatial_norm=NORM)))(batch(), 0, WHOLE)
    assert len(seen) == (1 if method is Repa else 2)
    for targets in seen:
        for made, raw in zip(targets, tokens(), strict=True):
            torch.testing.assert_close(made, spatially_normalised(raw, NORM))


@pytest.mark.parametrize("method", [RepaE(spatial_norm=NORM), Repa(spatial_norm=NORM, self_teacher=OWN), naive()])
def test_a_convolutional_projector_fits_every_method(method: Any) -> None:
    """It trains: its loss falls on one batch seen again and again."""
    game = step(setup(method=method, **{"backbone.projector": ConvProjectorConfig(), "seed": 2}))
    losses = [float(game(batch(), 0, WHOLE)["proj_loss"]) for _ in range(8)]
    assert losses[-1] < losses[0] - 0.03


@pytest.mark.parametrize("aligned", [True, False])
def test_the_self_teacher_is_the_average_at_a_later_block_with_less_noise(aligned: bool) -> None:
    """Its tokens by hand from the averaged weights, behind those of other teachers; no gradient, no lasting change."""
    game = step(setup(method=Repa(self_teacher=OWN)), aligned=aligned)
    game(batch(), 0, WHOLE)
    average = game.averages.denoiser.module
    draw = game.randomness(1, IMAGES, WHOLE, torch.device("cpu"))
    x = torch.randn(draw.noise.shape)
    (target,) = game.alignment.of_latents(x, batch(), draw, 1)
    earlier = torch.clamp(draw.time - 0.4 * draw.earlier, min=0)
    assert (earlier <= draw.time).all() and (earlier < draw.time).any()
    labels = torch.where(draw.dropped_labels, 3, batch().labels)
    shape = (-1, 1, 1, 1)
    noisy = (1 - earlier.view(shape)) * x + earlier.view(shape) * draw.noise
    torch.testing.assert_close(target, average.backbone.features(noisy, earlier, labels, 3))
    assert not target.requires_grad and not average.training
    assert game.models.denoiser.z_dims == ((6, 10, 32) if aligned else (32,))
    before = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    game.alignment.of_latents(x, batch(), draw, 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in average.state_dict().items())


def test_the_self_teacher_s_times_take_nothing_from_the_other_draws() -> None:
    """They are drawn last, so that a run with one sees the times and noises of a run without."""
    plain, own = step(setup(method=Repa())), step(setup(method=Repa(self_teacher=OWN)))
    draws = [game.randomness(3, IMAGES, WHOLE, torch.device("cpu")) for game in (plain, own)]
    assert all(torch.equal(a, b) for a, b in zip(*draws, strict=True))
    assert float(draws[0].earlier.min()) >= 0 and float(draws[0].earlier.max()) < 1


@pytest.mark.parametrize("depth", [2, 4])
def test_a_self_teacher_that_is_not_behind_the_aligned_block_is_refused(depth: int) -> None:
    """At the same block with the same noise it would ask for nothing; beyond the last one there is none."""
    with refused(UserError, f"self_teacher.depth {depth}", "encoder_depth 2", "3 to 3"):
        step(setup(method=Repa(self_teacher=SelfTeacherConfig(depth=depth))))
