"""Parallelism, applied to a built model and never written in one: what is put around it and taken off again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from repae.runtime.distributed import world


class Stacked(nn.Module, ABC):
    """A module that can be taken apart into what it is a stack of."""

    @abstractmethod
    def repeated_parts(self) -> list[nn.Module]:
        """Parts that are worth compiling, recomputing or sharding one by one, in the order in which they run.

        A module that is worth none of it in parts answers with itself.
        """


Module = TypeVar("Module", bound=nn.Module)
StackedT = TypeVar("StackedT", bound=Stacked)


@dataclass(frozen=True)
class ParallelPlan:
    """How a run computes with each of its trained modules.

    Attributes:
        device: where they are.
        compile: each repeated part, which takes a fraction of the time of compiling the whole.
    """

    device: torch.device
    compile: bool = False


def parallelise(module: StackedT, plan: ParallelPlan) -> StackedT:
    """What a run trains in the place of ``module``: the same weights under the same names, made ready as planned.

    The order is part of the meaning: what is recomputed is compiled as recomputed, and what is exchanged or sharded is
    compiled already. Averages and optimisers are built afterwards and read the module through `unwrap`, because a
    sharded parameter is another object than the one it was made of.

    The module must be on its device already. Among several processes all start from the parameters and buffers of the
    first. Buffers are not exchanged afterwards: whatever statistics a module keeps, it computes over all processes
    itself. A parallel module must be called itself (not a method of it) for the gradients to be exchanged.
    """
    # 1. Recomputation of activations goes here, around each repeated part. Nothing is recomputed yet.
    # 2. Compiling.
    if plan.compile:
        for part in module.repeated_parts():
            # Every shape of a run is fixed; guessing otherwise costs minutes of compilation.
            part.compile(dynamic=False)
    # 3. Many devices: data parallelism, in whose place sharding (`fully_shard`, part by part) would stand.
    return _data_parallel(module, plan.device)


def _data_parallel(module: StackedT, device: torch.device) -> StackedT:
    # DistributedDataParallel refuses a module in which nothing learns.
    if world().size == 1 or not any(parameter.requires_grad for parameter in module.parameters()):
        return module
    wrapped = DistributedDataParallel(
        module,
        device_ids=[device] if device.type == "cuda" else None,
        broadcast_buffers=False,
        # Gradients live in the buckets that are exchanged: one copy of them less.
        gradient_as_bucket_view=True,
    )
    # It forwards calls, and everything else is asked of `unwrap`.
    return cast(StackedT, wrapped)


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
