"""Runs side by side: each command in a process of its own, as a user would start it, and one table of their figures."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from repae.config import UserError
from repae.runs.open import load
from repae.runtime.precision import Precision
from repae.sampling import generate, grid
from repae.track import read_metrics

COLUMNS = {
    "accuracy": ("accuracy", 3),
    "nn_accuracy": ("1-NN accuracy", 3),
    "fd": ("FD", 2),
    "precision": ("precision", 3),
    "coverage": ("coverage", 3),
    "psnr": ("PSNR (dB)", 1),
    "denoising_loss": ("diffusion loss", 3),
    "cpu_ms": ("CPU-ms per step", 0),
}
"""The figures of a table, all without guidance, with their decimals."""

LAST_ROWS = 5
"""Log lines at the end of a run over which its diffusion loss is averaged."""

Results = dict[str, list[dict[str, Any]]]
"""The figures of every arm, one for each seed."""


def training(recipe: str, home: Path, name: str, seed: int, steps: int, **changes: object) -> list[str]:
    """The words of `repae` that train a digits recipe on one thread, quietly; further fields with `__` for the dot."""
    fields: dict[str, object] = {
        "name": name,
        "seed": seed,
        "loop.steps": steps,
        "preview.every": steps,
        "runtime.device": "cpu",
        "runtime.threads": 1,
        "track.progress": "false",
        "track.tensorboard": "false",
        **{field.replace("__", "."): value for field, value in changes.items()},
    }
    options = [word for field, value in fields.items() for word in (f"--{field}", str(value))]
    return ["train", recipe, *options, "--runs", str(home)]


def carry_out(done: Path, *commands: Sequence[str]) -> None:
    """Runs `repae` with the words of each command, one after the other, unless the file ``done`` is there already.

    Raises:
        UserError: one of them failed; its output is quoted.
    """
    if done.exists():
        return
    for command in commands:
        process = subprocess.run(
            [sys.executable, "-m", "repae", *command],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        if process.returncode:
            raise UserError(f"`repae {' '.join(command)}` failed: {(process.stderr or process.stdout)[-2000:]}")
    print(f"{done.parent.name}: done", file=sys.stderr)


def figures(folder: Path) -> dict[str, Any]:
    """One run's figures, with the CPU time of a training step; the last log line, which holds the preview, apart."""
    found = json.loads((folder / "evaluation.json").read_text())
    rows = read_metrics(folder / "metrics.jsonl")
    first, last = rows[0], rows[-2]
    cpu = last["wall"]["cpu_seconds"] - first["wall"]["cpu_seconds"]
    loss = statistics.fmean(row["denoising_loss"] for row in rows[-LAST_ROWS:])
    return {**found, "cpu_ms": 1000 * cpu / (last["step"] - first["step"]), "denoising_loss": loss}


def table(results: Results, titles: Mapping[str, str]) -> str:
    """A Markdown table, one row for each arm: mean and standard deviation over its seeds."""
    head = ["", *(title for title, _ in COLUMNS.values())]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for arm, words in titles.items():
        cells = [_cell([run[key] for run in results[arm]], digits) for key, (_, digits) in COLUMNS.items()]
        lines.append("| " + " | ".join([words, *cells]) + " |")
    return "\n".join(lines)


def wins(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], key: str, better: int) -> str:
    """In how many seeds one arm has the better figure: higher (``better`` 1) or lower (-1). Counted, not judged."""
    count = sum(better * (one[key] - other[key]) > 0 for one, other in zip(ours, theirs, strict=True))
    return f"{count} of {len(ours)}"


def mean_of(runs: Sequence[Mapping[str, Any]], key: str) -> float:
    """A figure's mean over seeds."""
    return statistics.fmean(run[key] for run in runs)


def circumstances(results: Results, folder: Path) -> dict[str, Any]:
    """What a page says of how its figures came about: floor, images, the processor of a run, the protocol as JSON."""
    runs = [run for arm in results.values() for run in arm]
    protocol = {key: value for key, value in runs[0]["protocol"].items() if key != "recipe"}
    return {
        "floor": mean_of(runs, "fd_floor"),
        "last": LAST_ROWS * 10,
        "images": protocol["images"],
        "cpu": json.loads((folder / "environment.json").read_text())["cpu"],
        "protocol": json.dumps(protocol, indent=1),
    }


@torch.no_grad()
def rows_of_digits(folders: Sequence[Path]) -> UInt8[np.ndarray, "h w c"]:
    """One row of unguided digits for each run, from the same noise and labels."""
    rows = []
    precision = Precision("fp32", torch.device("cpu"))
    for folder in folders:
        run = load(folder)
        labels = torch.arange(10).repeat_interleave(2)
        rows.append(
            generate(
                run.bundle,
                labels,
                sampler=run.recipe.evaluation.sampler,
                guidance=None,
                path=run.recipe.path,
                precision=precision,
                seed=7,
            )
        )
    return grid(torch.cat(rows), columns=20, readable=32)


def _cell(values: list[float], digits: int) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.{digits}f} ± {spread:.{digits}f}"
