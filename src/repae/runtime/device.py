"""Where a run computes."""

from __future__ import annotations

import torch

from repae.config import UserError
from repae.runtime.launch import read_launch

_KINDS = ("cuda", "mps", "cpu")


def pick_device(name: str = "auto") -> torch.device:
    """The device called ``name``: "cpu", "cuda", "cuda:1", "mps", or "auto" for the first at hand of CUDA, MPS, CPU.

    Among several processes of one host, each gets the CUDA device of its local rank.

    Raises:
        UserError: no such device here, or fewer GPUs than processes.
    """
    kind, _, index = name.partition(":")
    if name == "auto":
        kind = next(kind for kind in _KINDS if _available(kind))
    if kind not in _KINDS or (index and not (kind == "cuda" and index.isdecimal())):
        raise UserError(f"device {name!r} is unknown; allowed: auto, cpu, mps, cuda, cuda:0, cuda:1, ...")
    if not _available(kind):
        found = ", ".join(kind for kind in _KINDS if _available(kind))
        raise UserError(
            f"device {name!r} is not available on this machine; found: {found}; choose one of them or 'auto'"
        )
    return _cuda_device(name, index) if kind == "cuda" else torch.device(kind)


def set_threads(count: int) -> None:
    """Let one process compute with ``count`` CPU threads; 0 leaves torch's choice, all cores."""
    if count < 0:
        raise UserError(f"threads is {count}; allowed: a number from 1 on, or 0 to use all cores")
    if count:
        torch.set_num_threads(count)


def _cuda_device(name: str, index: str) -> torch.device:
    count = torch.cuda.device_count()
    launch = read_launch()
    if launch is None or launch.size == 1:
        chosen = int(index or 0)
        if chosen >= count:
            raise UserError(f"device {name!r} is not among the visible GPUs; allowed: cuda:0 to cuda:{count - 1}")
        return torch.device("cuda", chosen)
    if index:
        raise UserError(f"device {name!r} names one GPU for {launch.size} processes; use 'cuda': each takes its own")
    # Slurm may bind one GPU to each task, which then sees nothing but that one.
    chosen = 0 if launch.by_slurm and count == 1 else launch.local_rank
    if chosen >= count:
        raise UserError(
            f"process {launch.local_rank} of this host has no GPU: {count} visible; start at most {count} on this host"
        )
    return torch.device("cuda", chosen)


def _available(kind: str) -> bool:
    if kind == "cuda":
        return torch.cuda.is_available()
    return torch.backends.mps.is_available() if kind == "mps" else True
