from __future__ import annotations

import pytest
import torch
from errors import refused

from repae.config import UserError
from repae.evaluation.bootstrap import interval, resamples


def test_the_interval_of_a_mean_has_a_closed_form():
    """Of the mean of n numbers: 1.96 standard deviations over the square root of n, around the mean."""
    numbers = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = interval(lambda rows: float(numbers[rows].mean()), float(numbers.mean()), 400, 300)
    expected = 1.96 * float(numbers.std()) / 20
    assert (high + low) / 2 == pytest.approx(float(numbers.mean())) and (high - low) / 2 == pytest.approx(
        expected, rel=0.15
    )


def test_draw_i_depends_on_seed_and_i_only():
    """More resamples keep the first ones."""
    few, many = list(resamples(30, 2, seed=4)), list(resamples(30, 5, seed=4))
    assert all(torch.equal(a, b) for a, b in zip(few, many))
    assert not torch.equal(many[0], many[1]) and not torch.equal(many[0], next(resamples(30, 1, seed=5)))


def test_one_resample_has_no_spread():
    """Refused in words."""
    with refused(UserError, "at least 2 resamples", 1, "set resamples to 2"):
        interval(lambda rows: 0.0, 0.0, 5, 1)
