"""Frechet distance between two sets of features, and the distance that real images have to themselves.

Fit a Gaussian to each set, compare the Gaussians (Dowson and Landau, 1982; Heusel et al., arXiv 1706.08500, Eq. 6):

    d^2 = |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))

No matrix root is taken. With S1 = A A^T and S2 = B B^T in float64, by Cholesky or eigenvalues, the last trace is the
sum of the singular values of A^T B: exact for singular covariances too, where the root of S1 S2 is fragile.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from repae.config import UserError

FLOOR_SPLITS = 10
CHUNK = 4096


class Gaussian(NamedTuple):
    """A Gaussian by its mean and a factor A of its covariance, A A^T; all that a Frechet distance needs."""

    mean: Float[Tensor, " d"]
    factor: Float[Tensor, "d r"]

    @property
    def trace(self) -> Float[Tensor, ""]:
        return self.factor.square().sum()

    @classmethod
    def of(cls, mean: Float[Tensor, " d"], covariance: Float[Tensor, "d d"]) -> Gaussian:
        """From a covariance: its Cholesky factor, which is quick, or where it is singular that of its eigenvalues.

        Eigenvalues that are zero but for rounding are zero, and columns of zeros are left out.
        """
        # Either factorisation reads one triangle; where the two differ by rounding, their mean is meant.
        covariance = (covariance.double() + covariance.double().T) / 2
        rounding = len(covariance) * torch.finfo(covariance.dtype).eps
        lower, fault = torch.linalg.cholesky_ex(covariance)
        pivots = lower.diagonal().square()
        if not fault and pivots.min() > rounding * pivots.max():
            return cls(mean.double(), lower)
        values, vectors = torch.linalg.eigh(covariance)
        kept = values > rounding * values[-1].abs()
        return cls(mean.double(), vectors[:, kept] * values[kept].sqrt())

    @classmethod
    def fit(cls, features: Float[Tensor, "n d"]) -> Gaussian:
        """To features of two images at least. Of few images the centred rows themselves are the factor."""
        count, dim = features.shape
        if 2 <= count <= dim:  # a covariance of dim x dim would be singular, and slower to factor than the rows are
            rows = features.detach().to("cpu", torch.float64)
            return cls(rows.mean(0), ((rows - rows.mean(0)) / math.sqrt(count - 1)).T)
        return cls.of(*moments(features))

    def distance(self, other: Gaussian) -> float:
        """Squared Frechet distance (the number that is called FD or FID), never below 0."""
        if self.mean.shape != other.mean.shape:
            raise different_networks(len(self.mean), len(other.mean))
        cross = torch.linalg.svdvals(self.factor.T @ other.factor).sum()
        squared = (self.mean - other.mean).square().sum() + self.trace + other.trace - 2 * cross
        # Of equal sets rounding may leave a little less than nothing.
        return max(float(squared), 0.0)


def different_networks(one: int, other: int) -> UserError:
    return UserError(
        f"features of {one} and of {other} dimensions cannot be compared; both sets must come from the same network"
    )


def moments(features: Float[Tensor, "n d"], chunk: int = CHUNK) -> tuple[Float[Tensor, "d"], Float[Tensor, "d d"]]:
    """Mean and unbiased covariance in float64 on the CPU, summed over `chunk` rows at a time; two rows at least."""
    count, dim = features.shape
    if count < 2:
        raise UserError(f"a covariance needs features of at least 2 images; {count} given: give more")
    # Sums are of rows minus the mean of the first part, so that a large mean costs the covariance no digits.
    shift = features[:chunk].detach().to("cpu", torch.float64).mean(0)
    sums, products = torch.zeros(dim, dtype=torch.float64), torch.zeros(dim, dim, dtype=torch.float64)
    for part in features.detach().split(chunk):
        rows = part.to("cpu", torch.float64) - shift
        sums += rows.sum(0)
        products.addmm_(rows.T, rows)
    return shift + sums / count, (products - torch.outer(sums, sums / count)) / (count - 1)


def frechet_distance(a: Float[Tensor, "n d"], b: Float[Tensor, "m e"]) -> float:
    """Squared Frechet distance between the Gaussians fitted to two feature sets; in squared units of the features."""
    return Gaussian.fit(a).distance(Gaussian.fit(b))


def frechet_floor(real: Float[Tensor, "n d"], splits: int = FLOOR_SPLITS) -> float:
    """Distance of one random half of the real features to the other half: what a perfect generator could hope for.

    The mean over `splits` random splits with seeds 0, 1, ...: a single split can be off by a third. The halves hold
    half as many images as an evaluation compares, so the floor is biased upwards a little.
    """
    half = real.shape[0] // 2
    total = 0.0
    for seed in range(splits):
        # On the CPU, so that a floor is the same wherever the features lie.
        order = torch.randperm(real.shape[0], generator=torch.Generator().manual_seed(seed)).to(real.device)
        total += frechet_distance(real[order[:half]], real[order[half:]])
    return total / splits


def rank_warning(count: int, dim: int) -> str | None:
    """What to say of a covariance of `dim` dimensions from `count` images; nothing where it can have full rank."""
    if count > dim:
        return None
    return f"{count:,} images for {dim:,} dimensions: the covariance is singular and the distance too large"
