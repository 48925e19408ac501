"""Frechet distance between two sets of features, and the distance that real images have to themselves.

Fit a Gaussian to each set, compare the Gaussians (Dowson and Landau, 1982; Heusel et al., arXiv 1706.08500, Eq. 6):

    d^2 = |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))

No matrix root is taken. With S1 = A A^T and S2 = B B^T from eigenvalues, in float64, the last trace is the sum of the
singular values of A^T B: exact for singular covariances too, where the root of S1 S2 is fragile.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from repae.config import UserError

FLOOR_SPLITS = 10


def moments(features: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "d"], Float[Tensor, "d d"]]:
    """Mean and unbiased covariance in float64 on the CPU. `features`: any float type, two rows at least."""
    if features.shape[0] < 2:
        raise UserError(f"a covariance needs features of at least 2 images; {features.shape[0]} given")
    rows = features.detach().to("cpu", torch.float64)
    mean = rows.mean(0)
    centred = rows - mean
    return mean, centred.T @ centred / (rows.shape[0] - 1)


def gaussian_frechet(
    mean_a: Float[Tensor, "d"], cov_a: Float[Tensor, "d d"], mean_b: Float[Tensor, "d"], cov_b: Float[Tensor, "d d"]
) -> float:
    """Squared Frechet distance of two Gaussians (the number that is called FD or FID), never below 0."""
    cross = torch.linalg.svdvals(_factor(cov_a).T @ _factor(cov_b)).sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(float(distance), 0.0)


def frechet_distance(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> float:
    """Squared Frechet distance between the Gaussians fitted to two feature sets; in squared units of the features."""
    return gaussian_frechet(*moments(a), *moments(b))


def frechet_floor(real: Float[Tensor, "n d"], splits: int = FLOOR_SPLITS) -> float:
    """Distance of one random half of the real features to the other half: what a perfect generator could hope for.

    The mean over `splits` random splits with seeds 0, 1, ...: a single split can be off by a third. The halves hold
    half as many images as an evaluation compares, so the floor is biased upwards a little.
    """
    half = real.shape[0] // 2
    total = 0.0
    for seed in range(splits):
        order = torch.randperm(real.shape[0], generator=torch.Generator().manual_seed(seed)).to(real.device)
        total += frechet_distance(real[order[:half]], real[order[half:]])
    return total / splits


def _factor(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """A with A A^T = `covariance`; eigenvalues that are zero but for rounding are zero."""
    values, vectors = torch.linalg.eigh(covariance)
    rounding = len(values) * torch.finfo(values.dtype).eps * values[-1]
    return vectors * torch.where(values > rounding, values, 0.0).sqrt()
