"""The digest of weights: equal for equal weights, different for anything else."""

from __future__ import annotations

import torch
from torch import nn

from repae.runtime.digest import weights_digest


def test_it_names_the_weights_and_nothing_else() -> None:
    """Not the order in which they were registered, nor flags or mode; but names, types, shapes and every bit."""
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    digest = weights_digest(module)
    other = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    assert weights_digest(other) != digest
    other.load_state_dict(module.state_dict())
    assert weights_digest(other.eval().requires_grad_(False)) == digest
    with torch.no_grad():
        other[0].weight[0, 0] = torch.nextafter(other[0].weight[0, 0], torch.tensor(9.0))
    assert weights_digest(other) != digest
    assert weights_digest(module.bfloat16()) != digest

    def holding(**parameters: torch.Tensor) -> nn.Module:
        return nn.ParameterDict({name: nn.Parameter(value) for name, value in parameters.items()})

    one, two = torch.ones(2, 3), torch.zeros(6)
    assert weights_digest(holding(a=one, b=two)) == weights_digest(holding(b=two, a=one))
    assert weights_digest(holding(a=one)) != weights_digest(holding(a=one.reshape(3, 2)))
    assert weights_digest(holding(a=one)) != weights_digest(holding(b=one))
    assert len(digest) == 64
