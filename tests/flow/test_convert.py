from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from repae.flow import (
    CosinePath,
    LinearPath,
    Path,
    data_to_velocity,
    noise_to_velocity,
    score_to_velocity,
    velocity_to_data,
    velocity_to_noise,
    velocity_to_score,
)

PATHS = st.sampled_from([LinearPath(), CosinePath()])
TIMES = st.lists(st.floats(0.01, 0.99), min_size=1, max_size=6)


def points(*shape: int) -> torch.Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


def near(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@given(PATHS, TIMES)
def test_conversions_invert_the_path(path: Path, times: list[float]) -> None:
    """Protects: data and noise come back from (x_t, velocity), and the velocity from each of them."""
    t = torch.tensor(times, dtype=torch.float64)
    data, noise = points(len(t), 2, 3), points(len(t), 2, 3).flip(2)
    x, v = path.sample(data, noise, t)
    near(velocity_to_data(v, x, t, path), data)
    near(velocity_to_noise(v, x, t, path), noise)
    near(data_to_velocity(data, x, t, path), v, 1e-11)
    near(noise_to_velocity(noise, x, t, path), v, 1e-11)
    near(score_to_velocity(velocity_to_score(v, x, t, path), x, t, path), v, 1e-11)


def test_gaussian_data(path: Path, gaussian: type) -> None:
    """Protects: posterior means and score of N(1.5, .7^2) follow from its velocity, to 1e-12."""
    law = gaussian(1.5, 0.7, path)
    t = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
    x = points(49, 5)
    v = law.velocity(x, t)
    near(velocity_to_data(v, x, t, path), law.data(x, t))
    near(velocity_to_noise(v, x, t, path), law.noise(x, t))
    near(velocity_to_score(v, x, t, path), law.score(x, t))
    near(score_to_velocity(law.score(x, t), x, t, path), v)
    near(data_to_velocity(law.data(x, t), x, t, path), v)
    near(noise_to_velocity(law.noise(x, t), x, t, path), v)


def test_score_agrees_with_the_reference_formula(path: Path) -> None:
    """Protects: score = (r v - x) / (sigma^2 - r sigma' sigma) with r = alpha / alpha', the form of REPA's samplers."""
    t = torch.linspace(0.02, 1, 50, dtype=torch.float64)
    x, v = points(50, 1), points(50, 1).flip(0)
    column = t[:, None]
    ratio = path.alpha(column) / path.d_alpha(column)
    variance = path.sigma(column) ** 2 - ratio * path.d_sigma(column) * path.sigma(column)
    near(velocity_to_score(v, x, t, path), (ratio * v - x) / variance)


def test_at_the_data_end(path: Path) -> None:
    """Protects: at t = 0 the data are x itself, the score is infinite, and a finite score gives a finite velocity."""
    t = torch.zeros(4, dtype=torch.float64)
    data, noise = points(4, 3), points(4, 3).flip(0)
    x, v = path.sample(data, noise, t)
    near(velocity_to_data(v, x, t, path), x, 1e-15)
    near(velocity_to_noise(v, x, t, path), noise)
    assert torch.equal(velocity_to_score(v, x, t, path), -noise.sign() * torch.inf)
    near(noise_to_velocity(noise, x, t, path), v)
    near(score_to_velocity(points(4, 3), x, t, path), path.d_alpha(t)[:, None] * x)
    assert not data_to_velocity(data + 1, x, t, path).isfinite().any()


def test_at_the_noise_end(path: Path) -> None:
    """Protects: at t = 1 the noise is x, the score is -x, and neither of them determines the velocity."""
    t = torch.ones(4, dtype=torch.float64)
    data, noise = points(4, 3), points(4, 3).flip(0)
    x, v = path.sample(data, noise, t)
    assert torch.equal(x, noise)
    near(velocity_to_noise(v, x, t, path), x)
    near(velocity_to_data(v, x, t, path), data)
    near(velocity_to_score(v, x, t, path), -x)
    near(data_to_velocity(data, x, t, path), v)
    assert not noise_to_velocity(noise + 1, x, t, path).isfinite().any()
    assert not score_to_velocity(1 - x, x, t, path).isfinite().any()


def test_float32_stays_float32(path: Path) -> None:
    """Protects: a float64 time does not widen the result."""
    x = torch.randn(2, 3)
    for convert in (velocity_to_data, velocity_to_noise, velocity_to_score, score_to_velocity, data_to_velocity):
        assert convert(x, x, torch.tensor([0.3, 0.6], dtype=torch.float64), path).dtype == torch.float32
