"""Who started this process: nobody, `torchrun`, `accelerate launch` or Slurm, read from the environment alone."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from repae.config import UserError

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_SLURM = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")


class Launch(NamedTuple):
    """This process among all: global rank, number of processes, rank on its host, where rank 0 listens."""

    rank: int
    size: int
    local_rank: int
    address: str
    port: int
    by_slurm: bool


def read_launch(environment: Mapping[str, str] | None = None) -> Launch | None:
    """What the launcher wrote into ``environment`` (``os.environ`` when None), or None when there was no launcher.

    `torchrun` and `accelerate launch` set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; `srun` sets
    SLURM_PROCID, SLURM_NTASKS and SLURM_LOCALID, and the address is derived from its job where it is not given.

    Raises:
        UserError: some of the variables are set and others are not, or one is not a number.
    """
    environment = os.environ if environment is None else environment
    if any(name in environment for name in _TORCHRUN):
        return _from_torchrun(environment)
    if "SLURM_PROCID" in environment:
        return _from_slurm(environment)
    return None


def _from_torchrun(environment: Mapping[str, str]) -> Launch:
    _demand(environment, _TORCHRUN)
    rank, size, local_rank = (_number(environment, name) for name in _TORCHRUN)
    _check_rank(rank, size, "RANK", "WORLD_SIZE")
    if size > 1:
        _demand(environment, ("MASTER_ADDR", "MASTER_PORT"))
        return Launch(rank, size, local_rank, environment["MASTER_ADDR"], _number(environment, "MASTER_PORT"), False)
    return Launch(rank, size, local_rank, "127.0.0.1", 0, False)


def _from_slurm(environment: Mapping[str, str]) -> Launch:
    _demand(environment, _SLURM)
    rank, size, local_rank = (_number(environment, name) for name in _SLURM)
    _check_rank(rank, size, "SLURM_PROCID", "SLURM_NTASKS")
    # A batch script sees the numbers of its allocation although nobody started the other tasks: waiting for them
    # would last forever. Only srun sets the number of tasks of a step.
    if size > 1 and "SLURM_JOB_ID" in environment and "SLURM_STEP_NUM_TASKS" not in environment:
        raise UserError(
            f"SLURM_NTASKS is {size}, but this process was not started by srun, so the other {size - 1} do not exist; "
            "start it with `srun repae ...`, or with `torchrun`, or unset SLURM_PROCID to run one process"
        )
    address = environment.get("MASTER_ADDR") or _first_host(environment)
    if environment.get("MASTER_PORT"):
        port = _number(environment, "MASTER_PORT")
    else:
        # By the job's number: all its tasks agree, and two jobs on one host rarely meet.
        port = 15000 + int(environment.get("SLURM_JOB_ID", "0")) % 15000
    return Launch(rank, size, local_rank, address, port, True)


def _first_host(environment: Mapping[str, str]) -> str:
    hosts = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST")
    if not hosts or environment.get("SLURM_STEP_NUM_NODES", environment.get("SLURM_NNODES")) == "1":
        return "127.0.0.1"
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", hosts)
    assert first is not None, f"no host in {hosts!r}"
    # node[003-010,012] -> node003
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", first.group())


def _demand(environment: Mapping[str, str], names: tuple[str, ...]) -> None:
    missing = [name for name in names if not environment.get(name)]
    if missing:
        seen = [name for name in (*_TORCHRUN, *_SLURM) if environment.get(name)]
        raise UserError(
            f"the environment describes half of a parallel run: set {', '.join(seen)}; missing {', '.join(missing)}; "
            "start with `torchrun`, `accelerate launch` or `srun`, or unset them all to run one process"
        )


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment[name]
    if not text.isdecimal():
        raise UserError(f"environment variable {name} is {text!r}; a whole number from 0 on is allowed")
    return int(text)


def _check_rank(rank: int, size: int, rank_name: str, size_name: str) -> None:
    if rank >= size:
        raise UserError(
            f"{rank_name} is {rank} and {size_name} is {size}; the rank must be below the number of processes"
        )
