"""Gaussian data, for which every quantity of a path has a closed form."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from repae.flow import CosinePath, LinearPath, Path


@dataclass(frozen=True)
class Gaussian:
    """Data N(mean, std^2 I) on a path; `x` is `[B, ...]`, `t` is `[B]`."""

    mean: float
    std: float
    path: Path

    def _moments(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        t = t.view(-1, *[1] * (x.ndim - 1))
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        return alpha, sigma, alpha**2 * self.std**2 + sigma**2, x - alpha * self.mean

    def data(self, x: Tensor, t: Tensor) -> Tensor:
        alpha, _, variance, centred = self._moments(x, t)
        return self.mean + alpha * self.std**2 / variance * centred

    def noise(self, x: Tensor, t: Tensor) -> Tensor:
        _, sigma, variance, centred = self._moments(x, t)
        return sigma / variance * centred

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        _, _, variance, centred = self._moments(x, t)
        return -centred / variance

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        column = t.view(-1, *[1] * (x.ndim - 1))
        return self.path.d_alpha(column) * self.data(x, t) + self.path.d_sigma(column) * self.noise(x, t)

    def field(self, x: Tensor, t: float, start: float) -> Tensor:
        return self.velocity(x, torch.full((len(x),), t, dtype=x.dtype))


@pytest.fixture
def gaussian() -> type[Gaussian]:
    return Gaussian


@pytest.fixture(params=[LinearPath(), CosinePath()], ids=["linear", "cosine"])
def path(request: pytest.FixtureRequest) -> Path:
    return request.param
