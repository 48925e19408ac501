"""Rows between two images begin and end with exactly those two, and never leave what noise looks like."""

from __future__ import annotations

import math

import pytest
import torch

from repae.flow import Euler, EulerMaruyama, Guidance, LinearPath
from repae.models.autoencoders import TinyConfig
from repae.models.backbones.sit import SiT, SiTConfig
from repae.models.bundle import Bundle
from repae.models.denoiser import Denoiser
from repae.models.latent_norm import LatentNorm
from repae.runtime.precision import Precision
from repae.sampling import (
    BetweenClasses,
    Mixture,
    between_noise,
    chosen_noise,
    generate,
    image_noise,
    own_noise,
    spherical,
    step_noise,
)

SHAPE = (4, 4, 4)
FP32 = Precision("fp32", torch.device("cpu"))


@pytest.fixture(scope="module")
def bundle():
    """A small denoiser that listens to its label, and an autoencoder."""
    torch.manual_seed(0)
    vae = TinyConfig().build(1).eval()
    config = SiTConfig(
        input_size=4, in_channels=vae.latent_channels, hidden_size=16, depth=2, num_heads=2, num_classes=5
    )
    denoiser = Denoiser(SiT(config), (), 1, 16)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return Bundle("live", denoiser, vae, LatentNorm(vae.latent_channels))


def test_the_great_circle():
    """Right angles: cosine and sine of the share; lengths stay; what points the same way is mixed straight."""
    a, b = torch.zeros(3, 2, 2), torch.zeros(3, 2, 2)
    a[:, 0, 0], b[:, 1, 1] = 2.0, 2.0
    shares = torch.tensor([0.0, 1 / 3, 1.0])
    mixed = spherical(a, b, shares)
    expected = [2 * math.cos(math.pi / 6), 2 * math.sin(math.pi / 6)]
    assert mixed[1, 0, 0].item() == pytest.approx(expected[0]) and mixed[1, 1, 1].item() == pytest.approx(expected[1])
    torch.testing.assert_close(mixed.flatten(1).norm(dim=1), torch.full((3,), 2.0))
    assert torch.equal(mixed[0], a[0]) and torch.allclose(mixed[2], b[2])
    torch.testing.assert_close(spherical(a, 3 * a, shares)[1], a[1] * (1 + 2 / 3))


def test_chosen_noise_is_the_noise_of_those_numbers():
    """Once more the same seeds: at the start and at every step of a stochastic sampler."""
    chosen = [5, 5, 2]
    noise = chosen_noise(3, chosen, SHAPE)
    assert torch.equal(noise(range(1, 3), None), image_noise(3, [5, 2], SHAPE))
    assert torch.equal(noise(range(2), 7), step_noise(3, [5, 5], 7, SHAPE))
    assert torch.equal(own_noise(3, SHAPE)(range(4, 6), None), image_noise(3, range(4, 6), SHAPE))


def test_noise_between_seeds_is_as_long_as_noise():
    """The ends are the two seeds; the middle is as long, where a straight line would be shorter by a factor 0.7."""
    shape = (16, 16, 16)
    noise = between_noise(0, [Mixture(1, 2, share) for share in (0.0, 0.5, 1.0)], shape)
    start = noise(range(3), None)
    torch.testing.assert_close(start[[0, 2]], image_noise(0, [1, 2], shape))
    assert start[1].square().mean().item() == pytest.approx(1, abs=0.05)
    assert noise(range(3), 4)[1].square().mean().item() == pytest.approx(1, abs=0.05)


def test_mixed_classes_end_in_the_classes(bundle):
    """Share 0 and 1 are bit for bit what the two classes give; in between is neither, and batches change nothing."""
    mixtures = [Mixture(0, 3, share) for share in (0.0, 0.5, 1.0)]
    source = BetweenClasses(bundle, mixtures)
    x, t = torch.randn(3, *bundle.latent_shape), torch.tensor([0.2, 0.5, 0.9])
    found = source.velocity(x, t, torch.arange(3))
    assert torch.equal(found[[0, 2]], bundle.velocity(x, t, torch.tensor([0, 0, 3]))[[0, 2]])
    for label in (0, 3):
        assert (found[1] - bundle.velocity(x, t, torch.full((3,), label))[1]).abs().max() > 1e-4
    assert source.null_label == 3
    null = torch.full((3,), bundle.null_label)
    assert torch.equal(source.velocity(x, t, torch.full((3,), 3)), bundle.velocity(x, t, null))


@pytest.mark.parametrize("sampler", [Euler(steps=3), EulerMaruyama(steps=3)], ids=lambda sampler: sampler.kind)
def test_a_row_of_images_goes_from_one_class_to_the_other(bundle, sampler):
    """The whole way through guidance and sampler: the same noise along the row, its ends the two classes' images."""
    settings = {"sampler": sampler, "path": LinearPath(), "precision": FP32, "guidance": Guidance(scale=2.0)}
    noise = chosen_noise(0, [4, 4, 4], bundle.latent_shape)
    source = BetweenClasses(bundle, [Mixture(1, 2, share) for share in (0.0, 0.5, 1.0)])
    row = generate(source, torch.arange(3), noise=noise, **settings)
    assert torch.equal(row[[0, 2]], generate(bundle, torch.tensor([1, 2, 2]), noise=noise, **settings)[[0, 2]])
    alone = generate(bundle, torch.tensor([1]), first=4, **settings)
    assert int((row[0].int() - alone[0].int()).abs().max()) <= 1
