"""The training step of the embedded teacher: its objective, its views, and exact resuming."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from errors import refused
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from repae.data.batch import Batch
from repae.models.teachers.embedded import EmbeddedTeacherConfig
from repae.runtime.checkpoint import CheckpointStore
from repae.runtime.optimise import AdamWConfig
from repae.runtime.precision import Precision
from repae.runtime.seeds import Share, generator
from repae.training.teacher_step import (
    PretextConfig,
    TeacherStep,
    augment,
    draw_mask,
    masked_error,
    to_patches,
    vicreg,
)

CPU = torch.device("cpu")
WHOLE = Share(0, 1, 0, 1)
SMALL = EmbeddedTeacherConfig(widths=(8, 8, 16), heads=2)


def blobs(count: int, channels: int = 1, side: int = 32) -> Tensor:
    """Images with something in them: a bright spot at a place that differs from image to image."""
    line = torch.linspace(-1, 1, side)
    places = torch.rand(count, 2, generator=torch.Generator().manual_seed(5)) - 0.5
    down = (line[None, :, None] - places[:, 0, None, None]).square()
    across = (line[None, None, :] - places[:, 1, None, None]).square()
    spot = (255 * torch.exp(-8 * (down + across))).to(torch.uint8)
    return spot[:, None].expand(-1, channels, -1, -1).contiguous()


def batch(step: int, count: int = 16, labels: int = 0, **shape: int) -> Batch:
    indices = (torch.arange(count) + step * count) % 64
    return Batch(blobs(64, **shape)[indices], torch.full((count,), labels), indices)


def new_step(
    architecture: EmbeddedTeacherConfig = SMALL, steps: int = 8, seed: int = 0, **options: object
) -> TeacherStep:
    return TeacherStep(
        architecture, total_steps=steps, seed=seed, device=CPU, precision=Precision("fp32", CPU), **options
    )


def weights(step: TeacherStep) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in step.pretext.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_vicreg_is_zero_at_its_optimum() -> None:
    """Equal embeddings with uncorrelated dimensions of standard deviation above 1: nothing is left to do."""
    hadamard = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).double()
    assert all(float(term) == pytest.approx(0, abs=1e-12) for term in vicreg(2 * hadamard, 2 * hadamard))


def test_vicreg_sees_every_kind_of_collapse() -> None:
    """Closed forms: a shift is invariance; a constant is variance near 1 for each batch; copies are covariance."""
    z = torch.randn(50, 4).double()
    invariance, _, _ = vicreg(z, z + 3)
    assert float(invariance) == pytest.approx(9)
    _, variance, covariance = vicreg(torch.zeros(50, 4).double(), torch.zeros(50, 4).double())
    assert float(variance) == pytest.approx(2 * (1 - 1e-2))
    assert float(covariance) == 0
    copies = z[:, :1].expand(-1, 4)
    _, _, covariance = vicreg(copies, copies)
    assert float(covariance) == pytest.approx(2 * 12 / 4 * float(copies[:, 0].var()) ** 2)


@given(st.integers(3, 20), st.integers(1, 6))
def test_vicreg_is_that_of_a_library_formula(samples: int, width: int) -> None:
    """Held against torch.cov and torch.std."""
    one, other = torch.randn(2, samples, width).double()
    expected_variance = sum(F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() for z in (one, other))
    off = ~torch.eye(width, dtype=torch.bool)
    expected_covariance = sum(torch.cov(z.T).view(width, width)[off].square().sum() / width for z in (one, other))
    invariance, variance, covariance = vicreg(one, other)
    torch.testing.assert_close(invariance, F.mse_loss(one, other))
    torch.testing.assert_close(variance, expected_variance)
    torch.testing.assert_close(covariance, torch.as_tensor(expected_covariance).double())


def test_only_hidden_patches_count() -> None:
    """The error is a mean over hidden patches; guesses elsewhere cost nothing, and no mask costs nothing."""
    patches, hidden = torch.rand(3, 4, 6), torch.zeros(3, 4, dtype=torch.bool)
    assert float(masked_error(patches + 1, patches, hidden)) == 0
    hidden[0, 1] = hidden[2, 3] = True
    guess = torch.where(hidden[..., None], patches + 0.5, patches + 100)
    assert float(masked_error(guess, patches, hidden)) == pytest.approx(0.25, rel=1e-5)


def test_patches_lie_like_tokens() -> None:
    """Patch k is the 8 x 8 square at row k // grid and column k % grid, channel by channel."""
    images = torch.rand(2, 3, 16, 24)
    patches = to_patches(images)
    assert patches.shape == (2, 6, 192)
    torch.testing.assert_close(patches[1, 4], images[1, :, 8:16, 8:16].flatten())


def test_the_mask_hides_what_it_should() -> None:
    """The hidden share is uniform up to the ratio from view to view: mean ratio / 2, and none at ratio 0."""
    hidden = draw_mask(4000, 8, 0.3, generator(CPU, "mask")).float().mean(1)
    assert float(hidden.mean()) == pytest.approx(0.15, abs=0.01)
    assert float(hidden.std()) == pytest.approx((0.3**2 / 12 + 0.12 / 64) ** 0.5, abs=0.01)
    assert not draw_mask(10, 4, 0.0, generator(CPU, "mask")).any()


@pytest.mark.parametrize(("channels", "side"), [(1, 32), (3, 64)])
def test_views_are_images_of_the_same_things(channels: int, side: int) -> None:
    """Within levels and gain, different from each other, and about as bright as the image; black stays black."""
    images = blobs(400, channels, side).float() / 255
    views = augment(images, generator(CPU, "views"))
    assert views.shape == images.shape
    assert float(views.min()) >= 0
    assert float(views.max()) <= 1.285
    assert float((views - images).abs().mean()) > 0.02
    assert float(views.mean()) == pytest.approx(float(images.mean()), rel=0.2)
    assert not augment(torch.zeros_like(images[:4]), generator(CPU, "views")).any()


def test_about_three_in_ten_views_are_erased() -> None:
    """On a white image only the box is black inside: probability .3, sides of 3/16 to 3/8."""
    white = torch.ones(2000, 1, 32, 32)
    holes = (augment(white, generator(CPU, "boxes"))[:, 0, 12:20, 12:20] == 0).flatten(1)
    touched = float(holes.any(1).float().mean())
    assert 0.12 < touched < 0.3


def test_views_depend_on_the_generator_only() -> None:
    """The same key gives the same views, another one others."""
    images = blobs(8).float() / 255
    assert torch.equal(augment(images, generator(CPU, 1, "v", 2)), augment(images, generator(CPU, 1, "v", 2)))
    assert not torch.equal(augment(images, generator(CPU, 1, "v", 2)), augment(images, generator(CPU, 1, "v", 3)))


@pytest.mark.parametrize(("channels", "side"), [(1, 32), (3, 64)])
def test_it_learns(channels: int, side: int) -> None:
    """On grey digits' size and on RGB folders alike the objective falls and every part of it is reported."""
    step = new_step(
        SMALL.replace(image_channels=channels, resolution=side),
        steps=25,
        optimiser=AdamWConfig(lr=5e-3),
    )
    rows = [step(batch(k, channels=channels, side=side), k, WHOLE) for k in range(25)]
    first, last = (sum(float(row["teacher_loss"]) for row in part) / 5 for part in (rows[:5], rows[-5:]))
    assert last < first - 0.1
    assert rows[0].keys() == {
        "teacher_loss",
        "teacher_invariance",
        "teacher_variance",
        "teacher_covariance",
        "teacher_pixels",
        "grad_norm_teacher",
    }
    assert not any(value.requires_grad or value.ndim for value in rows[0].values())


def test_the_loss_is_the_weighted_sum_of_what_is_reported() -> None:
    """What is summed is what is logged."""
    config = PretextConfig(invariance=0.5, variance=2.0, covariance=0.1, pixels=3.0)
    row = new_step(pretext=config)(batch(0), 0, WHOLE)
    total = sum(
        getattr(config, name) * row[f"teacher_{name}"]
        for name in PretextConfig.model_fields
        if f"teacher_{name}" in row
    )
    torch.testing.assert_close(row["teacher_loss"], total)


def test_labels_play_no_part() -> None:
    """Two trainings that differ in the labels only give the same teacher, bit for bit."""
    one, other = new_step(), new_step()
    for k in range(2):
        one(batch(k, labels=0), k, WHOLE)
        other(batch(k, labels=7), k, WHOLE)
    assert same(weights(one), weights(other))


def test_the_seed_decides_and_nothing_else() -> None:
    """Initial weights and steps ignore torch's global state and leave it alone; another seed is another teacher."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = new_step()
    one(batch(0), 0, WHOLE)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    other = new_step()
    other(batch(0), 0, WHOLE)
    assert same(weights(one), weights(other))
    assert not same(weights(new_step(seed=1)), weights(new_step()))


def test_killed_and_resumed_is_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """Six steps in a row, or three, a checkpoint, a new process's objects and three more: equal bit for bit."""
    straight = new_step()
    rows = [straight(batch(k), k, WHOLE) for k in range(6)]
    first = new_step()
    for k in range(3):
        first(batch(k), k, WHOLE)
    store = CheckpointStore(tmp_path)
    store.save(3, first.parts(), {})
    second = new_step(seed=0)
    second(batch(9), 9, WHOLE)
    newest = store.latest()
    assert newest is not None
    store.load(newest, second.parts())
    again = [second(batch(k), k, WHOLE) for k in range(3, 6)]
    assert same(weights(straight), weights(second))
    for ours, theirs in zip(again, rows[3:], strict=True):
        assert same(ours, theirs)


def test_the_finished_teacher_is_the_trained_network_centred() -> None:
    """Frozen, in eval mode, with the step's weights, mean zero at each place; the step can go on training."""
    step = new_step()
    step(batch(0), 0, WHOLE)
    images = blobs(64)
    teacher = step.teacher(images.split(20))
    assert same(dict(teacher.network.state_dict()), dict(step.pretext.network.state_dict()))
    assert teacher(images).mean(0).abs().max() < 1e-5
    assert step.pretext.training
    assert all(parameter.requires_grad for parameter in step.pretext.parameters())
    kept = teacher(images)
    step(batch(1), 1, WHOLE)
    assert torch.equal(teacher(images), kept)


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_half_precision_sees_the_same_views(name: str) -> None:
    """The loop's autocast reaches the network only: geometry, masks and objective stay float32, the loss close."""
    precision = Precision(name, CPU)
    half = TeacherStep(SMALL, total_steps=8, seed=0, device=CPU, precision=precision)
    with precision.autocast():
        row = half(batch(0), 0, WHOLE)
    whole = new_step()(batch(0), 0, WHOLE)
    assert all(value.dtype == torch.float32 for value in row.values())
    assert float(row["teacher_loss"]) == pytest.approx(float(whole["teacher_loss"]), rel=0.02)
    assert row["grad_norm_teacher"].isfinite()


def test_part_of_a_batch_is_refused() -> None:
    """Statistics of a part are not those of the batch: micro-batches and shares of ranks are a mistake of ours."""
    with refused(AssertionError, "whole batch"):
        new_step()(batch(0), 0, Share(0, 2, 0, 1))
