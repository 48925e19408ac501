"""SiT's own checkpoints: time runs the other way there, and the output has channels that nobody reads.

SiT (arXiv 2401.08740, its published code) has t' = 0 for noise and t' = 1 for data, so t' = 1 - t and v' = -v. Both
changes are linear in weights, hence exact up to rounding, and the network needs no switch:

- the time embedding sees cos(f t') and sin(f t') for frequencies f, and
  cos(f - f t) = cos f cos(f t) + sin f sin(f t), sin(f - f t) = sin f cos(f t) - cos f sin(f t),
  which the first matrix of the embedding's MLP takes in;
- the last linear layer is negated.

SiT's "Linear" path is then the linear path here, its "GVP" the cosine path.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from repae.models.backbones.shared import TimeEmbedder

State = Mapping[str, Tensor]

_TIME = "t_embedder.mlp.0.weight"
_LAST = ("final_layer.linear.weight", "final_layer.linear.bias")


def to_our_time(state: State) -> dict[str, Tensor]:
    """The same velocity field with time and velocity reversed: v(x, t, y) = -v'(x, 1 - t, y)."""
    turned = {name: -state[name] for name in _LAST}
    return {**state, **turned, _TIME: _reflected(state[_TIME])}


def without_sigma(state: State, channels: int) -> dict[str, Tensor]:
    """The state without the second half of the output channels, which SiT has and throws away (``learn_sigma``)."""
    halved = {}
    for name in _LAST:
        patches = state[name].unflatten(0, (-1, 2 * channels))
        halved[name] = patches[:, :channels].flatten(0, 1).contiguous()
    return {**state, **halved}


def _reflected(weight: Float[Tensor, "d k"]) -> Float[Tensor, "d k"]:
    count = TimeEmbedder.frequencies
    exponent = torch.arange(count, dtype=torch.float64) / count
    frequency = torch.exp(-math.log(TimeEmbedder.max_period) * exponent)
    cosine, sine = frequency.cos(), frequency.sin()
    # In float64, so that the only rounding is the one at the end.
    of_cosine, of_sine = weight.double().split(count, dim=1)
    turned = torch.cat((of_cosine * cosine + of_sine * sine, of_cosine * sine - of_sine * cosine), dim=1)
    return turned.to(weight.dtype)
