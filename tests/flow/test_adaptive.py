from __future__ import annotations

import math

import pytest
import torch
from errors import refused
from torch import Tensor
from torchdiffeq import odeint

from repae.config import UserError
from repae.flow import DormandPrince, Guidance, LinearPath, Path, dormand_prince, guide

START = torch.linspace(-2.5, 2.5, 22, dtype=torch.float64).reshape(11, 2)


def wavy(x: Tensor, t: Tensor, start: float) -> Tensor:
    """A field that is neither affine nor gentle, and treats every number alone."""
    return torch.sin(3 * x + 8 * t[:, None]) * (1 + x**2) - x


@pytest.mark.parametrize("rtol", [1e-3, 1e-6, 1e-9])
def test_the_tolerance_is_kept(path: Path, gaussian: type, rtol: float) -> None:
    """Protects: on N(1.5, .7^2), whose ODE ends exactly at 1.5 + .7 x_1, the error follows the tolerance."""
    law = gaussian(1.5, 0.7, path)
    end = dormand_prince(lambda x, t, _: law.velocity(x, t), START, rtol, 1e-10)
    assert float((end - (1.5 + 0.7 * START)).abs().max()) < 10 * rtol


def test_it_agrees_with_torchdiffeq() -> None:
    """Protects: coefficients and control: torchdiffeq's dopri5 ends at the same points, an image at a time."""
    times = torch.tensor([1.0, 0.0], dtype=torch.float64)
    ours = dormand_prince(wavy, START, 1e-9, 1e-9)
    for image, end in zip(START, ours):
        theirs = odeint(lambda t, x: wavy(x[None], t[None], 0)[0], image, times, rtol=1e-9, atol=1e-9, method="dopri5")
        torch.testing.assert_close(end, theirs[-1], rtol=0, atol=3e-8)


def test_the_embedded_pair_has_orders_five_and_four() -> None:
    """Protects: the coefficients: with forced steps the solution converges with order 5, its error estimate with 5
    (the local error of order 4)."""
    from repae.flow import adaptive

    def field(x: Tensor, t: Tensor) -> Tensor:
        return wavy(x, t, 0)

    ends, estimates = [], []
    truth = dormand_prince(wavy, START, 1e-13, 1e-13, max_steps=20_000)
    for steps in (64, 128):
        x, length = START, torch.full((11,), 1 / steps, dtype=torch.float64)
        for number in range(steps):
            t = torch.full((11,), 1 - number / steps, dtype=torch.float64)
            slopes, x_next = adaptive._tried(field, x, field(x, t), t, length)
            if number == 0:
                estimates.append(float(adaptive._error_ratio(slopes, x, x_next, length, (0.0, 1.0)).norm()))
            x = x_next
        ends.append(float((x - truth).norm()))
    assert math.log2(ends[0] / ends[1]) == pytest.approx(5, abs=0.6)
    assert math.log2(estimates[0] / estimates[1]) == pytest.approx(5, abs=0.6)


def test_an_image_does_not_depend_on_its_batch() -> None:
    """Protects: every image has its own steps: alone, in pairs and with difficult neighbours it has the same bits."""
    whole = dormand_prince(wavy, START, 1e-4, 1e-6)
    for size in (1, 2, 4):
        parts = [dormand_prince(wavy, part, 1e-4, 1e-6) for part in START.split(size)]
        assert torch.equal(torch.cat(parts), whole)


def test_images_take_different_numbers_of_steps() -> None:
    """Protects: the control is not shared: at the same moment images are at different times."""
    seen: list[Tensor] = []

    def field(x: Tensor, t: Tensor, start: float) -> Tensor:
        seen.append(t.clone())
        return wavy(x, t, start) * torch.linspace(0, 4, len(x), dtype=x.dtype)[:, None]

    dormand_prince(field, START, 1e-4, 1e-6)
    assert any(len(t.unique()) > 3 for t in seen)
    assert all(bool(((t >= -1e-12) & (t <= 1)).all()) for t in seen)


def test_steps_end_where_guidance_begins_and_ends() -> None:
    """Protects: guidance is decided as the interval says, by a number, and costs no accuracy at its ends."""
    calls: list[tuple[float, float, int]] = []

    def network(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        calls.append((float(t.min()), float(t.max()), len(x)))
        return x * (y + 1)[:, None]

    guidance = Guidance(scale=2, low=0.2, high=0.7)
    field = guide(network, torch.zeros(11, dtype=torch.long), 1, guidance)
    sampler = DormandPrince(rtol=1e-8, atol=1e-8)
    end = sampler.run(field, START, lambda index, like: like, LinearPath(), guidance.breaks)
    for low, high, rows in calls:
        assert rows == 11 or (low >= 0.2 - 1e-12 and high <= 0.7 + 1e-12)
        assert rows == 22 or low >= 0.7 - 1e-12 or high <= 0.2 + 1e-12
    # v = x outside; null + 2 (label - null) = 2 x + 2 (x - 2 x) = 0 inside.
    torch.testing.assert_close(end, START * math.exp(-0.5), rtol=1e-6, atol=0)


@pytest.mark.parametrize("field", [lambda x, t, _: x * float("nan"), lambda x, t, _: 1e8 * torch.sin(1e8 * x)])
def test_a_hopeless_search_is_refused_in_words(field: object) -> None:
    """Protects: a velocity that is not finite, or tolerances that cannot be met, end in a line and not in a loop."""
    with refused(UserError, "30 steps", "rtol 0.001", "larger tolerances", "fixed steps"):
        DormandPrince(max_steps=30).run(field, START, lambda index, like: like, LinearPath())  # type: ignore[arg-type]


def test_the_network_sees_its_own_dtype() -> None:
    """Protects: float32 in, float32 out, times included, while steps are added up in float64."""
    seen = set()

    def field(x: Tensor, t: Tensor, start: float) -> Tensor:
        seen.add(x.dtype)
        return -x

    sampler = DormandPrince()
    assert sampler.run(field, START.float(), lambda index, like: like, LinearPath()).dtype == torch.float32
    assert seen == {torch.float32} and sampler.evaluations is None
    assert dormand_prince(field, START.float(), 1e-3, 1e-6).dtype == torch.float64
