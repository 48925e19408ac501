"""Evaluation mode as a context that leaves no trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Within the context the modules are in eval mode; afterwards every submodule is in the mode it had."""
    training = [part for module in modules for part in module.modules() if part.training]
    for part in training:
        # By attribute: train() sets all parts below to one mode, and frozen networks override it.
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True
