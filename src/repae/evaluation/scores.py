"""Inception Score and kernel distance: figures that are means over parts of a set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from repae.config import UserError
from repae.evaluation.frechet import different_networks

PART = 5_000
SUBSETS, SUBSET = 100, 1_000
SEED = 2020
"""Of the order of the Inception Score's parts and of the kernel distance's subsets: torch-fidelity's."""


class Score(NamedTuple):
    mean: float
    deviation: float


def inception_score(logits: Float[Tensor, "n k"], part: int = PART, seed: int | None = SEED) -> Score:
    """Inception Score (Salimans et al., arXiv 1606.03498): exp of the mean KL of p(y|x) from p(y), higher is better.

    The mean over parts of `part` images, as ADM's evaluator cuts them (the last may be smaller). Of fewer images the
    score is biased downwards, at most the number of images.

    Args:
        logits: without bias, of n images.
        seed: of the order in which images fall into parts, torch-fidelity's; None takes them as they come, which is
            ADM's rule and wrong for a set that is sorted by class.
    """
    count = len(logits)
    if count < 1:
        raise UserError("an Inception Score needs at least 1 image, and there is none; give some")
    order = np.arange(count) if seed is None else np.random.RandomState(seed).permutation(count)
    rows = torch.from_numpy(order)
    scores = []
    for part_rows in rows.split(part):
        # Logarithms of probabilities directly: one that rounds to 0 would make 0 * log 0.
        log_p = logits[part_rows].double().log_softmax(1)
        p = log_p.exp()
        scores.append(float((p * (log_p - p.mean(0).log())).sum(1).mean().exp()))
    return Score(float(np.mean(scores)), float(np.std(scores)))


def kernel_distance(
    a: Float[Tensor, "n d"], b: Float[Tensor, "m e"], subsets: int = SUBSETS, size: int = SUBSET, seed: int = SEED
) -> Score:
    """KID (Binkowski et al., arXiv 1801.01401): squared MMD with the kernel (x.y/d + 1)^3, unbiased, may be below 0.

    The mean over random subsets of both sets, drawn as torch-fidelity draws them, in float64. Unlike a Frechet
    distance its expectation does not depend on the number of images.

    Raises:
        UserError: a set has fewer images than a subset, or other dimensions than the other.
    """
    smallest = min(len(a), len(b))
    if smallest < size or size < 2:
        raise UserError(f"subsets of {size} images cannot be drawn from a set of {smallest}; allowed: 2 to {smallest}")
    if a.shape[1] != b.shape[1]:
        raise different_networks(a.shape[1], b.shape[1])
    draw = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        x, y = (rows[torch.from_numpy(draw.choice(len(rows), size, replace=False))].double() for rows in (a, b))
        values.append(_squared_mmd(x, y))
    return Score(float(np.mean(values)), float(np.std(values)))


def _squared_mmd(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> float:
    size = len(x)

    def kernel(p: Tensor, q: Tensor) -> Tensor:
        return (p @ q.T / p.shape[1] + 1).pow(3)

    # Without the diagonal: a row's likeness to itself is what makes the plain estimate too large.
    within = sum((k := kernel(rows, rows)).sum() - k.trace() for rows in (x, y)) / (size * (size - 1))
    return float(within - 2 * kernel(x, y).mean())
