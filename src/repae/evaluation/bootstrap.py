"""How far a figure would move if other images had been drawn: the bootstrap (Efron, 1979)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Int64
from torch import Tensor

from repae.config import UserError
from repae.runtime.seeds import generator

NORMAL = 1.959963984540054
"""Half the width of the central 95% of a normal distribution, in standard deviations."""

CPU = torch.device("cpu")


def resamples(count: int, number: int, seed: int = 0) -> Iterator[Int64[Tensor, " n"]]:
    """`number` draws of `count` rows with replacement; draw i depends on (seed, i) only."""
    for draw in range(number):
        yield torch.randint(count, (count,), generator=generator(CPU, seed, "bootstrap", draw))


def interval(
    figure: Callable[[Int64[Tensor, " n"]], float], value: float, count: int, number: int, seed: int = 0
) -> list[float]:
    """The 95% interval of a figure: its value, 1.96 standard deviations of its resampled values to either side.

    Not the quantiles of the resampled values: a Frechet distance of images that occur twice is too large, so those
    would lie beside the figure. It covers which images were generated, not which were chosen as reference, nor other
    trainings.

    `figure` computes it from the rows drawn, `value` is that of all `count` images; `number` resamples, at least 2.
    """
    if number < 2:
        raise UserError(f"an interval needs at least 2 resamples, not {number}; set resamples to 2 or more")
    values = [figure(rows) for rows in resamples(count, number, seed)]
    spread = NORMAL * float(torch.tensor(values, dtype=torch.float64).std())
    return [value - spread, value + spread]
