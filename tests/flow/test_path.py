from __future__ import annotations

import math

import pytest
import torch
from pydantic import TypeAdapter

from repae.flow import AnyPath, CosinePath, LinearPath, Path


def test_ends_are_exact(path: Path) -> None:
    """Protects: t = 0 is the data and t = 1 the noise, exactly, in both precisions."""
    for dtype in (torch.float32, torch.float64):
        ends = torch.tensor([0.0, 1.0], dtype=dtype)
        assert path.alpha(ends).tolist() == [1, 0]
        assert path.sigma(ends).tolist() == [0, 1]


def test_coefficients_are_those_of_the_paper() -> None:
    """Protects: linear is (1 - t, t), cosine is (cos, sin) of pi t / 2."""
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    torch.testing.assert_close(LinearPath().alpha(t), 1 - t, rtol=0, atol=0)
    torch.testing.assert_close(LinearPath().sigma(t), t, rtol=0, atol=0)
    torch.testing.assert_close(CosinePath().alpha(t), torch.cos(math.pi / 2 * t), rtol=0, atol=1e-15)
    torch.testing.assert_close(CosinePath().sigma(t), torch.sin(math.pi / 2 * t), rtol=0, atol=1e-15)


def test_derivatives_agree_with_autograd(path: Path) -> None:
    """Protects: the derivatives belong to the coefficients they are named after."""
    t = torch.linspace(0, 1, 33, dtype=torch.float64, requires_grad=True)
    for value, derivative in ((path.alpha, path.d_alpha), (path.sigma, path.d_sigma)):
        (slope,) = torch.autograd.grad(value(t).sum(), t)
        torch.testing.assert_close(derivative(t), slope, rtol=0, atol=1e-14)


def test_time_inverts_the_noise_ratio(path: Path) -> None:
    """Protects: log(sigma / alpha) at `time(r)` is r on every path, and extreme ratios stay in [0, 1]."""
    log_ratio = torch.linspace(-6, 6, 25, dtype=torch.float64)
    t = path.time(log_ratio)
    torch.testing.assert_close(torch.log(path.sigma(t) / path.alpha(t)), log_ratio, rtol=0, atol=1e-12)
    assert path.time(torch.tensor([-1e4, 1e4])).tolist() == [0, 1]


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 4, 2, 2)])
def test_sample_gives_each_image_its_own_time(path: Path, shape: tuple[int, ...]) -> None:
    """Protects: t is broadcast along the batch, never along another dimension of the same size."""
    generator = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    t = torch.rand(5, generator=generator, dtype=torch.float64)
    sample = path.sample(x, noise, t)
    for i in range(5):
        torch.testing.assert_close(sample.x_t[i], path.alpha(t[i]) * x[i] + path.sigma(t[i]) * noise[i])
        torch.testing.assert_close(sample.velocity[i], path.d_alpha(t[i]) * x[i] + path.d_sigma(t[i]) * noise[i])


def test_velocity_is_the_derivative_of_the_point(path: Path) -> None:
    """Protects: the regression target is d x_t / d t for fixed data and noise."""
    x, noise = torch.randn(2, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    t = torch.linspace(0.1, 0.9, 7, dtype=torch.float64)
    step = 1e-6
    difference = (path.sample(x, noise, t + step).x_t - path.sample(x, noise, t - step).x_t) / (2 * step)
    torch.testing.assert_close(path.sample(x, noise, t).velocity, difference, rtol=0, atol=1e-8)


def test_float32_data_stay_float32(path: Path) -> None:
    """Protects: a float64 time does not widen the training batch."""
    x = torch.randn(2, 4)
    sample = path.sample(x, torch.randn(2, 4), torch.rand(2, dtype=torch.float64))
    assert sample.x_t.dtype == sample.velocity.dtype == torch.float32


def test_recipes_can_name_a_path() -> None:
    """Protects: `kind` tells the paths apart."""
    adapter = TypeAdapter(AnyPath)
    assert adapter.validate_python({"kind": "linear"}) == LinearPath()
    assert adapter.validate_python({"kind": "cosine"}) == CosinePath()
