"""Two verbs that the joint step must not confuse: freezing parameters, and switching to evaluation mode.

Both restore what they found. Setting every flag to True afterwards would thaw tables that were never meant to train.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import nn

from repae.runtime.modes import evaluating
from repae.runtime.parallel import unwrap

Module = TypeVar("Module", bound=nn.Module)
MaybeModule = TypeVar("MaybeModule", bound=nn.Module | None)


@contextmanager
def frozen(module: MaybeModule) -> Iterator[MaybeModule]:
    """Within the context no parameter of ``module`` asks for a gradient; its train/eval mode is left alone.

    Yields the module without its data-parallel wrapper: a pass that trains nothing has nothing to synchronise.
    Gradients still flow through it to its inputs. A player who is missing (None) stays missing.
    """
    if module is None:
        yield module
        return
    bare = unwrap(module)
    flags = [(parameter, parameter.requires_grad) for parameter in bare.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield bare  # type: ignore[misc]
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@contextmanager
def frozen_eval(module: Module) -> Iterator[Module]:
    """`frozen` and in eval mode: a gradient passes through the module, and nothing in it moves, no statistic either."""
    with frozen(module) as bare, evaluating(bare):
        yield bare
