"""Runs side by side: each command in a process of its own, as a user would start it, and one table of their figures.

Nothing here knows more of the package than its command line and its public names.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image

import repae
from repae.flow import UNGUIDED

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

GAP, BACKGROUND = 4, 96
"""Pixels between the images of a picture, and their grey."""

Results = dict[str, list[dict[str, Any]]]
"""The figures of every arm, one for each seed."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much is compared: ``seeds`` runs of each arm, ``jobs`` at a time, each on one thread."""

    seeds: int = 3
    steps: int = 1000
    jobs: int = 2

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.jobs < 1:
            raise ValueError(f"{self.seeds} seeds, {self.jobs} jobs: at least 1 of each is needed")
        if self.steps < 30:  # the cost of a step is taken between log lines, one in ten steps, the last one apart
            raise ValueError(f"{self.steps} steps: at least 30 are needed to measure what one costs")


ScaleT = TypeVar("ScaleT", bound=Scale)


def command(
    argv: Sequence[str] | None, about: str, scale: type[ScaleT], compare: Callable[[ScaleT, Path, Path | None], Path]
) -> int:
    """The experiment as a program: the fields of its scale are options, and so are the folders of runs and page."""
    parser = argparse.ArgumentParser(description=about)
    for field in dataclasses.fields(scale):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", type=int, default=field.default, help=f"default {field.default}"
        )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept; default runs")
    parser.add_argument("--out", type=Path, help="where page and picture go; beside the runs if not given")
    given = vars(parser.parse_args(argv))
    runs, out = given.pop("runs"), given.pop("out")
    try:
        page = compare(scale(**given), runs, out)
    except (ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"done: {page}")
    return 0


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
        RuntimeError: one of them failed; its output is quoted.
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
            raise RuntimeError(f"`repae {' '.join(command)}` failed: {(process.stderr or process.stdout)[-2000:]}")
    print(f"{done.parent.name}: done", file=sys.stderr)


def results_of(home: Path, arms: Sequence[str], seeds: int) -> Results:
    """Figures and cost of the runs ``home/ARM-sSEED``."""
    folders = [home / f"{arm}-s{seed}" for arm in arms for seed in range(seeds)]
    found = iter(zip(folders, repae.compare(*folders).figures, strict=True))
    return {arm: [{**figures, **_cost(folder)} for _, (folder, figures) in zip(range(seeds), found)] for arm in arms}


def _cost(folder: Path) -> dict[str, float]:
    """CPU time of a training step, without the last log line, which holds the preview; and the diffusion loss."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    first, last = rows[0], rows[-2]
    cpu = last["wall"]["cpu_seconds"] - first["wall"]["cpu_seconds"]
    loss = statistics.fmean(row["denoising_loss"] for row in rows[-LAST_ROWS:])
    return {"cpu_ms": 1000 * cpu / (last["step"] - first["step"]), "denoising_loss": loss}


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


def write_digits(path: Path, folders: Sequence[Path]) -> None:
    """A picture with one row of unguided digits for each run, two of each class, from the same noise."""
    labels = torch.arange(10).repeat_interleave(2)
    runs = [repae.load(folder) for folder in folders]
    rows = [run.sample(labels, seed=7, sampler=run.recipe.evaluation.sampler, guidance=UNGUIDED) for run in runs]
    side = rows[0].shape[-1] + GAP
    picture = Image.new("L", (len(labels) * side + GAP, len(rows) * side + GAP), BACKGROUND)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            picture.paste(Image.fromarray(image[0].numpy()), (GAP + column * side, GAP + row * side))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)


def _cell(values: list[float], digits: int) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.{digits}f} ± {spread:.{digits}f}"
