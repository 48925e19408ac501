"""Runs a function of a test file in several real processes joined by gloo, as a launcher would start them.

    results = run_processes(work, argument, size=2)     # what `work(argument)` gave on rank 0 and on rank 1

`work` stands at the top level of a file; it is found again by its name, so nothing but its arguments travels. It runs
between `distributed.start` and `distributed.stop`, with one thread. Arguments and results are tensors and plain values
in lists, tuples and dicts.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

_HERE = Path(__file__).resolve()
_ROOT = _HERE.parents[1]
_LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

Launcher = Literal["environment", "torchrun", "accelerate", "slurm"]


def run_processes(
    work: Callable[..., Any], *arguments: Any, size: int = 2, launcher: Launcher = "environment", timeout: float = 180
) -> list[Any]:
    """What ``work(*arguments)`` returned in each of ``size`` processes, by rank; fails with their output."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save(list(arguments), folder / "arguments.pt")
        child = [str(_HERE), str(Path(work.__code__.co_filename).resolve()), work.__name__, name]
        started = [
            subprocess.Popen(command + child, env=environment, stdout=stdout, stderr=subprocess.STDOUT)
            for command, environment, stdout in _commands(launcher, size, folder)
        ]
        try:
            codes = _wait(started, time.monotonic() + timeout)
        finally:
            for process in started:
                process.terminate()
                process.wait()
        if any(code != 0 for code in codes):
            output = "\n".join(path.read_text() for path in sorted(folder.glob("output-*.txt")))
            raise AssertionError(f"exit statuses {codes}\n{output[-6000:]}")
        return [torch.load(folder / f"result-{rank}.pt", weights_only=True) for rank in range(size)]


def free_port() -> int:
    """A TCP port of this host that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def child_environment(**more: str) -> dict[str, str]:
    """This environment without traces of a launcher, with the package and the tests importable, plus ``more``."""
    kept = {key: value for key, value in os.environ.items() if key not in _LAUNCHERS and not key.startswith("SLURM_")}
    paths = os.pathsep.join([str(_ROOT / "src"), str(_ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    return {**kept, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **more}


def _wait(started: list[subprocess.Popen[Any]], deadline: float) -> list[int | None]:
    """Exit statuses when all have ended or one has failed: the others would wait for it for ever."""
    while True:
        codes = [process.poll() for process in started]
        if None not in codes or any(codes) or time.monotonic() > deadline:
            return codes
        time.sleep(0.02)


def _commands(launcher: Launcher, size: int, folder: Path) -> list[tuple[list[str], dict[str, str], Any]]:
    port = str(free_port())
    python = [sys.executable]
    if launcher in ("torchrun", "accelerate"):
        options = ["torch.distributed.run", "--nproc-per-node", str(size), "--master-port", port]
        if launcher == "accelerate":
            # With --cpu accelerate would start one process; what runs here chooses the CPU itself.
            options = ["accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--num_processes", str(size)]
            options += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", port]
        return [([*python, "-m", *options], child_environment(), (folder / "output-0.txt").open("w"))]
    commands = []
    for rank in range(size):
        numbers = (str(rank), str(size), str(rank))
        names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID") if launcher == "slurm" else _LAUNCHERS[:3]
        where = {"MASTER_PORT": port} if launcher == "slurm" else {"MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
        environment = child_environment(**dict(zip(names, numbers)), **where)
        commands.append((python, environment, (folder / f"output-{rank}.txt").open("w")))
    return commands


def _main(file: str, function: str, folder: str) -> None:
    from repae.runtime import distributed

    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("work_of_a_test", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    arguments = torch.load(Path(folder) / "arguments.pt", weights_only=True)
    world = distributed.start(torch.device("cpu"))
    result = getattr(module, function)(*arguments)
    torch.save(result, Path(folder) / f"result-{world.rank}.pt")
    distributed.stop()


if __name__ == "__main__":
    _main(*sys.argv[1:])
