from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from errors import refused

from repae.config import UserError
from repae.evaluation import cknna, latent_figures
from repae.evaluation.latent_space import effective_channels, high_frequency_share, power_spectrum


def _randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _by_definition(a, b, k):
    """CKNNA written out in loops: masked kernels, unbiased HSIC of Song et al. (2012)."""
    n = len(a)
    kernels = [(x / np.linalg.norm(x, axis=1, keepdims=True)) for x in (a, b)]
    kernels = [x @ x.T for x in kernels]
    near = [
        [set(sorted((j for j in range(n) if j != i), key=lambda j: -K[i, j])[:k]) for i in range(n)] for K in kernels
    ]

    def hsic(p, q):
        K, L = np.zeros((n, n)), np.zeros((n, n))
        for i in range(n):
            for j in near[p][i] & near[q][i]:
                K[i, j], L[i, j] = kernels[p][i, j], kernels[q][i, j]
        one = np.ones(n)
        first = np.trace(K @ L)
        second = one @ K @ one * (one @ L @ one) / ((n - 1) * (n - 2))
        return (first + second - 2 / (n - 2) * (one @ K @ L @ one)) / (n * (n - 3))

    return hsic(0, 1) / math.sqrt(hsic(0, 0) * hsic(1, 1))


@pytest.mark.parametrize("k", [3, 10, 24])
def test_cknna_equals_its_definition(k):
    """Against loops, for few neighbours and for all of them, where it is plain centred kernel alignment."""
    a = _randn(25, 6)
    b = torch.cat([a[:, :3], _randn(25, 4, seed=1)], 1)
    assert cknna(a, b, k) == pytest.approx(_by_definition(a.numpy(), b.numpy(), k), rel=1e-9)


def test_limits_of_cknna():
    """1 for the same representation up to scale and rotation, near 0 for unrelated ones; nearly symmetric."""
    a = _randn(200, 8)
    turn = torch.linalg.qr(_randn(8, 8, seed=2)).Q
    assert cknna(a, 3 * a @ turn) == pytest.approx(1.0)
    unrelated = _randn(200, 8, seed=3)
    assert abs(cknna(a, unrelated)) < 0.1 and cknna(a, unrelated) == pytest.approx(cknna(unrelated, a), rel=0.01)
    with refused(UserError, "k = 10", "at least 11", "10, 10"):
        cknna(a[:10], a[:10])


def test_effective_channels_counts_them():
    """Independent channels count fully, copies of one channel count once."""
    latents = _randn(400, 4, 8, 8)
    assert effective_channels(latents) == pytest.approx(4.0, abs=0.01)
    assert effective_channels(latents[:, :1].expand(-1, 4, -1, -1)) == pytest.approx(1.0, abs=1e-6)
    assert effective_channels(latents[:, [0, 1, 1, 0]]) == pytest.approx(2.0, abs=0.01)


def test_the_spectrum_finds_a_wave():
    """A wave of 3 cycles is all in band 3; white noise spreads by area; the mean of a latent counts nowhere."""
    axis = torch.arange(16) * 2 * math.pi / 16
    wave = torch.cos(3 * axis).expand(2, 3, 16, 16) + 5
    assert torch.allclose(power_spectrum(wave), torch.eye(8, dtype=torch.float64)[2], atol=1e-12)
    assert high_frequency_share(wave) == pytest.approx(0.0, abs=1e-12)
    assert high_frequency_share(_randn(200, 2, 32, 32)) == pytest.approx(0.78, abs=0.02)
    with refused(UserError, "square", "2 places", "8 x 4", "crop them"):
        power_spectrum(_randn(2, 3, 8, 4))


def test_all_figures_of_latents():
    """Channel statistics in float64; a probe that finds a class in the latents; no probe of one class."""
    labels = torch.arange(100) % 2
    latents = _randn(100, 3, 4, 4) * 0.1
    latents[:, 1] += 2.0 * labels[:, None, None]
    found = latent_figures(latents, labels, latents.flatten(1))
    assert found["latent_mean"] == pytest.approx(latents.mean((0, 2, 3)).tolist())
    assert found["latent_std"][1] == pytest.approx(1.0, abs=0.05)
    assert found["latent_probe_accuracy"] == 1.0 and found["latent_cknna"] == pytest.approx(1.0)
    assert sum(found["latent_spectrum"]) == pytest.approx(1.0)
    alone = latent_figures(latents, labels * 0)
    assert "latent_probe_accuracy" not in alone and "latent_cknna" not in alone
