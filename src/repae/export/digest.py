"""Weights in few words: which they are, and how many."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from repae.runtime.digest import state_digest


def digest(state: Mapping[str, Tensor]) -> str:
    """The first 12 hexadecimal digits of `state_digest`."""
    return state_digest(state)[:12]


def parameters(state: Mapping[str, Tensor]) -> int:
    """Number of values, counters of one number left out."""
    return sum(tensor.numel() for tensor in state.values() if tensor.ndim > 0)
