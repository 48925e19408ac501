"""Which weights these are, whatever file they lie in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def digest(state: Mapping[str, Tensor]) -> str:
    """12 hexadecimal digits of the SHA-256 of all names, shapes and values.

    An autoencoder of a run, of an exported folder and of a converted file of the reference have the same digest if
    their weights are the same: the wrapper's prefix does not count.
    """
    total = hashlib.sha256()
    for name in sorted(state, key=_bare):
        tensor = state[name].detach().cpu().contiguous()
        total.update(f"{_bare(name)} {tensor.dtype} {tuple(tensor.shape)};".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:12]


def parameters(state: Mapping[str, Tensor]) -> int:
    """Number of values, counters of one number left out."""
    return sum(tensor.numel() for tensor in state.values() if tensor.ndim > 0)


def _bare(name: str) -> str:
    return name.removeprefix("model.")
