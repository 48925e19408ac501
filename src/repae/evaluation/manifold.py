"""Precision and recall on manifolds of features, and nearest neighbours, for sets too large for a table of all pairs.

Kynkaanniemi et al., arXiv 1904.06991, as ADM's evaluator applies it: the ball around an image reaches to its third
nearest other image. Distances are squared, in float64, from products of rows centred on the real mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from repae.config import UserError
from repae.evaluation.frechet import different_networks

NEIGHBOURS = 3
TABLE = 2**24
"""Distances that are held at once."""


class Manifolds(NamedTuple):
    """Which images lie inside the manifold of the other set; precision and recall are their shares."""

    generated: Bool[Tensor, " n"]
    real: Bool[Tensor, " m"]

    @property
    def precision(self) -> float:
        return float(self.generated.double().mean())

    @property
    def recall(self) -> float:
        return float(self.real.double().mean())


class Nearest(NamedTuple):
    """The nearest images of another set, nearest first: their places there and their Euclidean distances."""

    indices: Int64[Tensor, "n k"]
    distances: Float[Tensor, "n k"]


def manifolds(generated: Float[Tensor, "n d"], real: Float[Tensor, "m e"], k: int = NEIGHBOURS) -> Manifolds:
    """Which images lie inside the balls of the other set; a ball reaches to its centre's k-th nearest other image."""
    smallest = min(len(generated), len(real))
    if smallest <= k:
        raise UserError(
            f"the {k} nearest neighbours need more than {k} images in each set; {smallest} given: "
            "give more, or fewer neighbours"
        )
    a, b = _centred(generated, real)
    of_generated, of_real = _radii(a, k), _radii(b, k)
    inside_real, inside_generated = torch.zeros(len(a), dtype=torch.bool), torch.zeros(len(b), dtype=torch.bool)
    for rows, table in _tables(a, b):
        inside_real[rows] = (table <= of_real).any(1)
        inside_generated |= (table <= of_generated[rows, None]).any(0)
    return Manifolds(inside_real, inside_generated)


def nearest_images(generated: Float[Tensor, "n d"], real: Float[Tensor, "m e"], k: int = 1) -> Nearest:
    """The k nearest real images of every generated one in these features: is it memorising?"""
    if len(real) < k or k < 1:
        raise UserError(f"{k} nearest images were asked for; allowed: 1 to {len(real)}, as many as there are")
    a, b = _centred(generated, real)
    found = [table.topk(k, dim=1, largest=False) for _, table in _tables(a, b)]
    return Nearest(torch.cat([f.indices for f in found]), torch.cat([f.values for f in found]).sqrt())


def copies(nearest: Nearest, real: Float[Tensor, "m d"]) -> float:
    """Share of generated images nearer to a real one than 99% of real images are to each other.

    .01 is what other real images give; far above it hints at memorised training images.
    """
    within = _radii(_centred(real, real)[1], 1).sqrt()
    return float((nearest.distances[:, 0] < within.quantile(0.01)).double().mean())


def _radii(rows: Float[Tensor, "n d"], k: int) -> Float[Tensor, " n"]:
    """Squared distance of every row to its k-th nearest other row."""
    radii = []
    for part, table in _tables(rows, rows):
        # An image is not a neighbour of its own.
        table[torch.arange(len(table)), part] = float("inf")
        radii.append(table.kthvalue(k, dim=1).values)
    return torch.cat(radii)


def _centred(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.shape[1] != b.shape[1]:
        raise different_networks(a.shape[1], b.shape[1])
    mean = b.detach().double().mean(0)
    # a^2 - 2ab + b^2 loses the digits that a large common mean takes up.
    return a.detach().double() - mean, b.detach().double() - mean


def _tables(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Iterator[tuple[Int64[Tensor, " r"], Tensor]]:
    """Squared distances of a few rows of `a` at a time, with their numbers, to all of `b`."""
    lengths = b.square().sum(1)
    for rows in torch.arange(len(a)).split(max(1, TABLE // len(b))):
        part = a[rows]
        yield rows, (part.square().sum(1)[:, None] - 2 * part @ b.T + lengths).clamp_min_(0)
