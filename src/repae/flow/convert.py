"""Conversions between the velocity, the score, the data and the noise at a point x of a path.

Given x = alpha data + sigma noise and v = alpha' data + sigma' noise, the 2x2 system solves to

    data = (sigma' x - sigma v) / D,   noise = (alpha v - alpha' x) / D,   D = alpha sigma' - sigma alpha'

with D = 1 on the linear and pi / 2 on the cosine path, for all t. So from a velocity, data and noise are defined on
all of [0, 1]. The conversions are linear: given the expected velocity E[v | x] they return E[data | x], E[noise | x]
and the score of the marginal density, -E[noise | x] / sigma.

At the ends: the score from a velocity is infinite at t = 0 (or nan, where the noise estimate is 0) and exactly -x at
t = 1. At t = 1 neither the score nor the noise determines the velocity, and at t = 0 the data do not: those results
are infinite or nan there.

Arguments: `v`, `score`, `data`, `noise` and `x` are `[B, ...]` of one shape and dtype, `t` is `[B]` in [0, 1]; the
result has the shape and dtype of `x`. Source: SiT, arXiv 2401.08740, Sec. 2.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from repae.flow.path import Path, PerSample, Samples, along_batch


class _Coefficients(NamedTuple):
    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor
    determinant: Tensor


def _coefficients(path: Path, t: PerSample, like: Samples) -> _Coefficients:
    alpha, sigma = along_batch(path.alpha(t), like), along_batch(path.sigma(t), like)
    d_alpha, d_sigma = along_batch(path.d_alpha(t), like), along_batch(path.d_sigma(t), like)
    return _Coefficients(alpha, sigma, d_alpha, d_sigma, alpha * d_sigma - sigma * d_alpha)


def velocity_to_data(v: Samples, x: Samples, t: PerSample, path: Path) -> Samples:
    """The data estimate (sigma' x - sigma v) / D, Tweedie's posterior mean. Finite for all t; x itself at t = 0."""
    c = _coefficients(path, t, x)
    return (c.d_sigma * x - c.sigma * v) / c.determinant


def velocity_to_noise(v: Samples, x: Samples, t: PerSample, path: Path) -> Samples:
    """The noise estimate (alpha v - alpha' x) / D. Finite for all t; x itself at t = 1."""
    c = _coefficients(path, t, x)
    return (c.alpha * v - c.d_alpha * x) / c.determinant


def velocity_to_score(v: Samples, x: Samples, t: PerSample, path: Path) -> Samples:
    """The score grad log p_t(x) = -noise / sigma. Infinite (or nan) at t = 0, -x at t = 1."""
    # Minus: the density rises against the noise.
    return -velocity_to_noise(v, x, t, path) / along_batch(path.sigma(t), x)


def score_to_velocity(score: Samples, x: Samples, t: PerSample, path: Path) -> Samples:
    """The velocity (alpha' x - D sigma score) / alpha. Finite at t = 0; infinite or nan at t = 1."""
    c = _coefficients(path, t, x)
    return (c.d_alpha * x - c.determinant * c.sigma * score) / c.alpha


def data_to_velocity(data: Samples, x: Samples, t: PerSample, path: Path) -> Samples:
    """The velocity (sigma' x - D data) / sigma. Finite at t = 1; infinite or nan at t = 0."""
    c = _coefficients(path, t, x)
    return (c.d_sigma * x - c.determinant * data) / c.sigma


def noise_to_velocity(noise: Samples, x: Samples, t: PerSample, path: Path) -> Samples:
    """The velocity (alpha' x + D noise) / alpha. Finite at t = 0; infinite or nan at t = 1."""
    c = _coefficients(path, t, x)
    return (c.d_alpha * x + c.determinant * noise) / c.alpha
