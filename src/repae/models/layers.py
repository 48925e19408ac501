"""What several networks share."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


def at_least_float32(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """``x`` in float32, or in float64 where it was that already."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def linear(in_features: int, out_features: int, *, std: float | None = None) -> nn.Linear:
    """A linear layer with zero bias and weights that are Xavier-uniform, or N(0, std) where ``std`` is given."""
    layer = nn.Linear(in_features, out_features)
    if std is None:
        nn.init.xavier_uniform_(layer.weight)
    else:
        nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer
