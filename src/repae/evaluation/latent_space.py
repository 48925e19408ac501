"""What an autoencoder's latents are like, as a diffusion model meets them: normalised, [n, c, h, w]."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from repae.config import UserError
from repae.models.teachers.degeneracy import linear_probe

CKNNA_NEIGHBOURS = 10


def latent_figures(
    latents: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"], teacher: Float[Tensor, "n d"] | None = None
) -> dict[str, Any]:
    """Every figure of this page.

    Keys: `latent_mean` and `latent_std` of each channel; `latent_spectrum` (`power_spectrum`); and as single numbers
    `latent_channels_used` (`effective_channels`), `latent_high_frequency` (`high_frequency_share`),
    `latent_probe_accuracy` (`linear_probe` on flattened latents), `latent_cknna` with the teacher's features.
    What cannot be computed is left out.
    """
    rows = latents.flatten(1)
    figures: dict[str, Any] = {
        "latent_mean": latents.double().mean((0, 2, 3)).tolist(),
        "latent_std": latents.double().std((0, 2, 3), correction=0).tolist(),
        "latent_spectrum": power_spectrum(latents).tolist(),
        "latent_channels_used": effective_channels(latents),
        "latent_high_frequency": high_frequency_share(latents),
        "latent_probe_accuracy": linear_probe(rows.float(), labels),
    }
    if teacher is not None and len(rows) > CKNNA_NEIGHBOURS:
        figures["latent_cknna"] = cknna(rows, teacher, CKNNA_NEIGHBOURS)
    return {key: value for key, value in figures.items() if not (isinstance(value, float) and math.isnan(value))}


def effective_channels(latents: Float[Tensor, "n c h w"]) -> float:
    """How many channels the latents fill: exp of the entropy of the eigenvalues of their covariance, 1 to c.

    In the manner of the effective rank of Roy and Vetterli (2007), over all images and places. c: channels that are
    uncorrelated and equally strong; 1: all channels say the same.
    """
    rows = latents.double().permute(0, 2, 3, 1).flatten(0, 2)
    values = torch.linalg.eigvalsh((rows - rows.mean(0)).T @ (rows - rows.mean(0))).clamp_min(0)
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum().exp())


def power_spectrum(latents: Float[Tensor, "n c h w"]) -> Float[Tensor, " f"]:
    """Share of the variance over places at each spatial frequency 1 .. side/2 (in cycles per side), mean of images.

    Frequencies are rounded to whole ones by their length; those in the corners of the square, beyond side/2, count to
    the last. Channels weigh by their variance. The mean of each latent, frequency 0, is left out; the shares sum to 1.
    """
    height, width = latents.shape[-2:]
    if height != width or width < 2:
        raise UserError(
            f"a spectrum needs square latents of 2 places a side or more, not {height} x {width}; crop them"
        )
    power = torch.fft.fft2(latents.double()).abs().square().sum((0, 1))
    axis = torch.fft.fftfreq(width, 1 / width)
    radius = torch.hypot(axis[:, None], axis[None]).round().long().clamp_max(width // 2)
    bands = torch.zeros(width // 2 + 1, dtype=torch.float64).index_add_(0, radius.flatten(), power.flatten())
    return bands[1:] / bands[1:].sum()


def high_frequency_share(latents: Float[Tensor, "n c h w"]) -> float:
    """Share of the variance over places at more than half of the highest frequency; white noise has about 4/5.

    Latents with much of it are hard for a diffusion model, which makes coarse things first.
    """
    spectrum = power_spectrum(latents)
    return float(spectrum[len(spectrum) // 2 :].sum())


def cknna(a: Float[Tensor, "n d"], b: Float[Tensor, "n e"], k: int = CKNNA_NEIGHBOURS) -> float:
    """Alignment of two representations of the same images: CKNNA (Huh et al., arXiv 2405.07987), 1 for equal ones.

    Centred kernel alignment (unbiased HSIC, Song et al., 2012) in which a pair (i, j) counts only where j is among the
    k most similar images to i in both; features are scaled to unit length. REPA (arXiv 2410.06940) takes k = 10.
    """
    fewest = max(k + 1, 4)
    if len(a) != len(b) or len(a) < fewest:
        raise UserError(f"CKNNA with k = {k} compares the same images, at least {fewest}; {len(a)}, {len(b)} given")
    kernels = [units @ units.T for units in (F.normalize(rows.double(), dim=1) for rows in (a, b))]
    near = [_nearest(kernel, k) for kernel in kernels]

    def aligned(p: int, q: int) -> float:
        mutual = near[p] * near[q]
        return _hsic(mutual * kernels[p], mutual * kernels[q])

    scale = math.sqrt(max(aligned(0, 0) * aligned(1, 1), 0.0))
    return aligned(0, 1) / scale if scale > 0 else math.nan


def _nearest(kernel: Float[Tensor, "n n"], k: int) -> Float[Tensor, "n n"]:
    """1 where the column is among the k most similar others of the row."""
    others = kernel.clone()
    # Nobody is a neighbour of himself.
    others.fill_diagonal_(float("-inf"))
    return torch.zeros_like(kernel).scatter_(1, others.topk(k, dim=1).indices, 1.0)


def _hsic(a: Float[Tensor, "n n"], b: Float[Tensor, "n n"]) -> float:
    """Unbiased estimate of the Hilbert-Schmidt independence criterion, from kernels whose diagonals do not count."""
    n = len(a)
    a, b = a.clone().fill_diagonal_(0), b.clone().fill_diagonal_(0)
    pairs = (a * b.T).sum() + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 * (a @ b).sum() / (n - 2)
    return float(pairs / (n * (n - 3)))
