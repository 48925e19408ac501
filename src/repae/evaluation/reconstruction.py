"""How well an autoencoder gives an image back: PSNR, SSIM and a figure for a printed lattice."""

from __future__ import annotations

import math

import torch
from jaxtyping import UInt8
from torch import Tensor

from repae.config import UserError

PSNR_LIMIT = 100.0


def psnr(real: UInt8[Tensor, "n c h w"], reconstructed: UInt8[Tensor, "n c h w"]) -> float:
    """Peak signal-to-noise ratio in dB of 8-bit images, from the squared error averaged over all images.

    One average and then one logarithm, which is never above the mean of the per-image ratios. Equal sets give 100 dB.
    """
    total = sum(float((a.double() - b.double()).square().sum()) for a, b in _pairs(real, reconstructed))
    error = total / real.numel()
    return min(PSNR_LIMIT, 10 * math.log10(255.0**2 / error)) if error > 0 else PSNR_LIMIT


def ssim(real: UInt8[Tensor, "n c h w"], reconstructed: UInt8[Tensor, "n c h w"]) -> float:
    """Structural similarity, mean over images: scikit-image's, uniform 7 x 7 window, data range 255.

    Source: Wang et al., "Image quality assessment", 2004. Images must be 7 px or more on each side.
    """
    from skimage.metrics import structural_similarity

    if min(real.shape[-2:]) < 7:
        height, width = real.shape[-2:]
        raise UserError(f"images of {height} x {width} px are smaller than SSIM's window; allowed: 7 px or more a side")
    total = 0.0
    for chunk in _pairs(real, reconstructed):
        for a, b in zip(*chunk, strict=True):
            # Its result is one number here, but a tuple under options that are not used.
            total += float(structural_similarity(a.numpy(), b.numpy(), channel_axis=0, data_range=255))  # type: ignore
    return total / len(real)


def fixed_pattern(real: UInt8[Tensor, "n c h w"], reconstructed: UInt8[Tensor, "n c h w"], period: int = 4) -> float:
    """Share of the variance of the reconstruction error that is one fixed `period` x `period` pattern, in [0, 1].

    A pixel-shuffle decoder under a stride-2 discriminator can print the same lattice on every image, which features
    that pool 2 x 2 do not see. Averaging the error over all images and over all pixels of equal phase (row mod period,
    column mod period) does. 0: no lattice (or no error at all); 1: the error is nothing but a lattice.
    """
    height, width = real.shape[-2:]
    if height % period or width % period:
        raise UserError(
            f"a {period} x {period} pattern does not tile images of {height} x {width} px; "
            f"allowed: sides that are multiples of {period}, or another period"
        )
    total, squares = torch.zeros(real.shape[1], height, width, dtype=torch.float64), 0.0
    for a, b in _pairs(real, reconstructed):
        error = b.double() - a.double()
        total += error.sum(0)
        squares += float(error.square().sum())
    mean = total / real.shape[0]
    centre = mean.mean((-2, -1), keepdim=True)
    phases = mean.unfold(-2, period, period).unfold(-2, period, period).mean((-4, -3))
    variance = squares / real.numel() - float(centre.square().mean())
    pattern = float((phases - centre).square().mean())
    return min(1.0, pattern / variance) if variance > 0 else 0.0


def _pairs(real: Tensor, reconstructed: Tensor, chunk: int = 256) -> list[tuple[Tensor, Tensor]]:
    assert real.shape == reconstructed.shape and len(real) > 0, (real.shape, reconstructed.shape)
    return list(zip(real.cpu().split(chunk), reconstructed.cpu().split(chunk), strict=True))
