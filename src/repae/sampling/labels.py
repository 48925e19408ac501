"""Which classes to draw."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from repae.config import UserError
from repae.runtime.seeds import generator

CPU = torch.device("cpu")


def balanced_labels(count: int, num_classes: int) -> Int64[Tensor, " n"]:
    """Image i is of class i mod `num_classes`: any first part of the list is balanced too."""
    _positive(count)
    return torch.arange(count).remainder(num_classes)


def random_labels(count: int, num_classes: int, seed: int) -> Int64[Tensor, " n"]:
    """Image i is of a class drawn uniformly by (`seed`, i), independent of its noise."""
    _positive(count)
    # One for each image, so that its class stays when more images are asked for.
    generators = (generator(CPU, seed, "label", i) for i in range(count))
    return torch.cat([torch.randint(num_classes, (1,), generator=each) for each in generators])


def labels_like(labels: Int64[Tensor, " m"], count: int) -> Int64[Tensor, " n"]:
    """`count` labels in ascending order with the class shares of `labels` (largest remainders get what is left over).

    With `count` equal to the number of `labels` these are the same labels, sorted.
    """
    _positive(count)
    counts = torch.bincount(labels.cpu())
    exact = counts.double() * count / len(labels)
    shares = exact.floor().long()
    left = count - int(shares.sum())
    # Stable, so that among equal remainders it is the same classes on every machine.
    shares[(exact - shares).sort(descending=True, stable=True).indices[:left]] += 1
    return torch.repeat_interleave(torch.arange(len(counts)), shares)


def grid_labels(num_classes: int, rows: int = 10, columns: int = 10) -> Int64[Tensor, " n"]:
    """Labels of a grid whose every row is one class: all classes, or `rows` of them spread evenly."""
    chosen = torch.arange(num_classes)
    if num_classes > rows:
        chosen = torch.linspace(0, num_classes - 1, rows).round().long()
    return chosen.repeat_interleave(columns)


def _positive(count: int) -> None:
    if count < 1:
        raise UserError(f"{count} images were asked for; at least 1 is needed")
