"""The processes of a run and what they add up. Everything here is the identity when there is one process."""

from __future__ import annotations

import datetime
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor

from repae.config import UserError, one_line
from repae.runtime.launch import read_launch

_PATIENCE = datetime.timedelta(minutes=30)
"""How long one process waits for another: the first may be warming up an autoencoder or writing a checkpoint."""


class World(NamedTuple):
    """This process among all: global rank, number of processes, rank on its host (the index of its GPU)."""

    rank: int
    size: int
    local_rank: int


_ALONE = World(0, 1, 0)
_world = _ALONE


def world() -> World:
    """This process among all; ``World(0, 1, 0)`` unless `start` joined others."""
    return _world


def is_main() -> bool:
    """Whether this is the process that writes files and speaks."""
    return _world.rank == 0


def start(device: torch.device) -> World:
    """Join the processes that the launcher started: NCCL for a CUDA ``device``, gloo otherwise. Alone, do nothing.

    ``device`` comes from `repae.runtime.device.pick_device`, which gives each process of a host its own GPU.

    Raises:
        UserError: the environment describes half of a run, or the other processes cannot be reached.
    """
    global _world
    assert _world == _ALONE, "the processes have been joined already"
    if device.type == "cuda":
        # Before the processes meet: NCCL takes the current device for this process's own.
        torch.cuda.set_device(device)
    launch = read_launch()
    if launch is None or launch.size == 1:
        return _world
    # torchrun's agent may hold the store of the run itself, which only its own method of meeting knows.
    method = f"tcp://{launch.address}:{launch.port}" if launch.by_slurm else "env://"
    try:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=method,
            rank=launch.rank,
            world_size=launch.size,
            timeout=_PATIENCE,
            device_id=device if device.type == "cuda" else None,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"process {launch.rank} of {launch.size} could not meet the others at {launch.address}:{launch.port}: "
            f"{one_line(error)}; check MASTER_ADDR and MASTER_PORT and that all processes were started"
        ) from error
    _world = World(launch.rank, launch.size, launch.local_rank)
    return _world


def stop() -> None:
    """Leave the others. Harmless when nothing was started."""
    global _world
    if _world.size > 1:
        dist.destroy_process_group()
    _world = _ALONE


def barrier() -> None:
    if _world.size > 1:
        dist.barrier()


def from_main(numbers: dict[str, float]) -> dict[str, float]:
    """The numbers that the main process has, on every process, bit for bit. Waits for the main process."""
    if _world.size == 1:
        return numbers
    box = [numbers]
    dist.broadcast_object_list(box)
    return box[0]


class _AllReduceSum(torch.autograd.Function):
    """Sum over processes. Each process's output depends on every input, so gradients are summed over processes too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        # all_reduce works in place, and the input belongs to autograd.
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _AllReduceSum.apply(gradients[0])


def all_reduce_sum(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Sum of ``x`` over the processes, on each of them; same shape on all.

    Differentiable to any order: for a loss summed over the processes, the gradient is the sum of theirs. Data
    parallelism averages the gradients of parameters, so a loss that is a mean over a process's share needs no factor.
    """
    return _AllReduceSum.apply(x) if _world.size > 1 else x  # type: ignore[return-value]


def all_reduce_mean(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Mean of ``x`` over the processes: `all_reduce_sum` divided by their number. Differentiable."""
    return all_reduce_sum(x) / _world.size if _world.size > 1 else x


def global_moments(
    x: Float[Tensor, "..."], dims: int | tuple[int, ...]
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."], int]:
    """Mean and biased variance of ``x`` over ``dims`` and over the processes, and how many values entered each.

    Every process holds a tensor of the same shape. The dimensions ``dims`` are gone from the results. Two passes (the
    squared deviations from the global mean are summed, not the squares), so a large mean costs no accuracy; at least
    float32; differentiable through both results.
    """
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    dims = (dims,) if isinstance(dims, int) else dims
    count = _world.size
    for dim in dims:
        count *= x.shape[dim]
    mean = all_reduce_sum(x.sum(dims, keepdim=True)) / count
    variance = all_reduce_sum((x - mean).square().sum(dims)) / count
    return mean.reshape(variance.shape), variance, count


def all_true(flag: Bool[Tensor, "..."]) -> Bool[Tensor, "..."]:
    """Whether ``flag`` holds on every process, element by element, decided on the device without waiting for it."""
    if _world.size == 1:
        return flag
    agreed = flag.to(torch.int32)
    dist.all_reduce(agreed, dist.ReduceOp.MIN)
    return agreed.bool()


def every_process(flag: bool) -> bool:
    """Whether ``flag`` holds on every process. Waits for all of them: for rare events, not for every step."""
    if _world.size == 1:
        return flag
    # NCCL carries what lies on a GPU only.
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    return bool(all_true(torch.tensor(flag, device=device)).item())


def any_process(flag: bool) -> bool:
    """Whether ``flag`` holds on at least one process, for instance that one was told to stop. Waits for all of them."""
    return not every_process(not flag)
