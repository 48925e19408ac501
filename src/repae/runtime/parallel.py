"""What is put around a module to make it fast and parallel, and how to take it off again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from repae.runtime.distributed import world

Module = TypeVar("Module", bound=nn.Module)


def wrap(module: nn.Module, *, compile: bool, device: torch.device) -> nn.Module:  # noqa: A002
    """Compile ``module`` in place and, among several processes, let it average its gradients over them.

    With ``compile``, a module that lists its repeated parts in ``compile_parts()`` has each of them compiled, which
    takes a fraction of the time of compiling the whole; names of parameters stay as they are. The module must be on
    ``device`` already. Among several processes all start from the parameters and buffers of the first. Buffers are
    not exchanged afterwards: whatever statistics a module keeps, it computes over all processes itself.

    A parallel module must be called itself (not a method of it) for the gradients to be exchanged.
    """
    if compile:
        parts = getattr(module, "compile_parts", None)
        for part in [module] if parts is None else parts():
            # Every shape of a run is fixed; guessing otherwise costs minutes of compilation.
            part.compile(dynamic=False)
    if world().size == 1 or not any(parameter.requires_grad for parameter in module.parameters()):
        return module
    return DistributedDataParallel(
        module,
        device_ids=[device] if device.type == "cuda" else None,
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
    )


def unwrap(module: Module) -> Module:
    """The module itself, for its methods, its weights, and passes that train nothing."""
    return module.module if isinstance(module, DistributedDataParallel) else module  # type: ignore[return-value]


def synchronise(modules: Iterable[nn.Module], on: bool) -> None:
    """Whether the next forward and backward passes of parallel ``modules`` exchange gradients.

    Off for all micro-batches of an update but the last, which then exchanges what all of them accumulated. Set it
    before the forward pass.
    """
    for module in modules:
        if isinstance(module, DistributedDataParallel):
            module.require_backward_grad_sync = on
