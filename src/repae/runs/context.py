"""Where a run computes and writes, decided once."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from repae.config import UserError, write_atomic
from repae.recipes.recipe import RuntimeConfig
from repae.runtime.device import pick_device, set_threads
from repae.runtime.distributed import start, stop
from repae.runtime.precision import Precision, enable_tf32


@dataclass(frozen=True)
class RunContext:
    """Device, precision and folders of one run."""

    device: torch.device
    precision: Precision
    config: RuntimeConfig
    runs: Path


@contextmanager
def run_context(config: RuntimeConfig, runs: Path) -> Iterator[RunContext]:
    """Joins the processes that were started, sets threads and precision, and leaves the processes at the end."""
    set_threads(config.threads or 0)
    device = pick_device(config.device)
    enable_tf32(config.tf32)
    start(device)
    try:
        yield RunContext(device, Precision(config.precision, device), config, runs)
    finally:
        stop()


def write_environment(path: Path, device: torch.device) -> None:
    """``environment.json``: versions, commit and hardware, for whoever repeats the run."""
    packages = ("repae", "torch", "torchvision", "timm", "diffusers", "numpy", "pillow", "scikit-learn", "safetensors")
    versions = {name: _version(name) for name in packages}
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "commit": _commit(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": _cpu(),
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    write_atomic(path, json.dumps(facts, indent=2) + "\n")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def check_writable(folder: Path) -> None:
    """Refuses a folder in which nothing could be written; makes none."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"{folder} cannot be made: {there} is no folder; choose another one with --runs")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{folder} cannot be made: {there} may not be written to; choose another one with --runs")


def writable(folder: Path) -> Path:
    """``folder``, made if it is missing; refused where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}; choose another folder with --runs") from None
    return folder
