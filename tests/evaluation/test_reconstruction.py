from __future__ import annotations

import math

import pytest
import torch
from errors import refused
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from repae.config import UserError
from repae.evaluation import fixed_pattern, psnr, ssim


def _images(n=300, c=1, size=16, low=60, high=190, seed=0):
    return torch.randint(
        low, high, (n, c, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def _noisy(images, sigma, seed=1):
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)) * sigma
    return (images.float() + noise).round().clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_and_ssim_equal_scikit_image(channels):
    """PSNR pools the error of all images; SSIM is the mean over images. More than one chunk, 1 and 3 channels."""
    real = _images(260, channels)
    rebuilt = _noisy(real, 9.0)
    assert psnr(real, rebuilt) == pytest.approx(peak_signal_noise_ratio(real.numpy(), rebuilt.numpy(), data_range=255))
    each = [structural_similarity(a, b, channel_axis=0, data_range=255) for a, b in zip(real.numpy(), rebuilt.numpy())]
    assert ssim(real, rebuilt) == pytest.approx(sum(each) / len(each))


def test_a_constant_error_has_a_closed_form():
    """An error of 10 everywhere is 20 log10(25.5) dB; no error is 100 dB, an SSIM of 1, no pattern."""
    real = _images()
    assert psnr(real, real + 10) == pytest.approx(20 * math.log10(25.5))
    assert psnr(real, real) == 100.0 and ssim(real[:5], real[:5]) == pytest.approx(1.0)
    assert fixed_pattern(real, real) == 0.0


def test_noise_is_no_lattice():
    """Errors without a fixed phase give about 0, a constant offset exactly 0: it is no pattern."""
    real = _images()
    assert fixed_pattern(real, _noisy(real, 10.0)) < 1e-3
    assert fixed_pattern(real, real + 7) == pytest.approx(0.0, abs=1e-12)


@given(st.floats(1.0, 12.0), st.floats(0.0, 12.0), st.integers(0, 3), st.integers(0, 3))
def test_a_lattice_is_its_share_of_the_error(height, sigma, row, column):
    """Dots of known height at any phase in noise of known strength: the share is that of the variances."""
    real, lattice = _images().float(), torch.zeros(16, 16)
    lattice[row::4, column::4] = round(height)
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(2)) * sigma
    rebuilt = (real + lattice + noise).round().clamp(0, 255).to(torch.uint8)
    of_lattice, of_noise = float(lattice.var(correction=0)), float((rebuilt - lattice - real).var())
    assert fixed_pattern(real.to(torch.uint8), rebuilt) == pytest.approx(of_lattice / (of_lattice + of_noise), abs=0.01)


def test_a_lattice_of_half_the_period_is_found_too():
    """A checkerboard of period 2 repeats with period 4; one of period 8 does not."""
    real, row = _images(), torch.arange(16)
    for step, expected in ((2, 1.0), (4, 1.0), (8, 0.0)):
        board = ((row // (step // 2))[:, None] + (row // (step // 2))[None]) % 2 * 8
        assert fixed_pattern(real, real + board.to(torch.uint8)) == pytest.approx(expected, abs=1e-9)


def test_sizes_that_do_not_fit_are_refused():
    """A pattern that does not tile the image, and images below SSIM's window."""
    with refused(UserError, "4 x 4", "18 x 18 px", "multiples of 4"):
        fixed_pattern(_images(2, size=18), _images(2, size=18))
    with refused(UserError, "SSIM's window", "4 x 4 px", "7 px or more"):
        ssim(_images(2, size=4), _images(2, size=4))
