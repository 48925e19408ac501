"""The paper in miniature: five ways to train on the digits, at equal steps and seeds, in one table."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from repae.config import Config, UserError, write_atomic
from repae.recipes.load import load
from repae.recipes.place import writable
from repae.runtime.precision import Precision
from repae.sample import generate, grid, write_png
from repae.track import read_metrics

ARMS = {
    "digits-naive": "naive joint (diffusion loss into the VAE)",
    "digits-sit": "SiT, frozen VAE",
    "digits-repa": "REPA, frozen VAE",
    "digits-control": "REPA-E, class-mean targets",
    "digits": "REPA-E",
}
"""The recipes that are compared, and what the table calls them."""

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
"""The figures of the table, all without guidance, with their decimals."""

LAST_ROWS = 5
"""Log lines at the end of a run over which its diffusion loss is averaged."""


class MiniatureConfig(Config):
    """How much is compared: ``seeds`` runs of each arm, ``jobs`` at a time, each on one thread."""

    seeds: int = Field(default=3, ge=1)
    steps: int = Field(default=1000, ge=20)
    jobs: int = Field(default=2, ge=1)


def miniature(config: MiniatureConfig, runs: Path = Path("runs"), out: Path | None = None) -> Path:
    """Trains and judges every arm, and writes ``miniature.md`` and ``miniature.png`` to ``out``.

    Every arm of a seed shares that seed's teacher, warmed-up autoencoder and initial denoiser. Runs that are done are
    not repeated, so an interrupted comparison goes on.

    Returns:
        The table.

    Raises:
        UserError: one of the runs failed; its output is quoted.
    """
    home = writable(runs / f"miniature-{config.steps}")
    jobs = [(arm, seed) for seed in range(config.seeds) for arm in ("digits", *ARMS)]
    with ThreadPoolExecutor(config.jobs) as pool:
        list(pool.map(lambda job: _carry_out(job[0], job[1], config.steps, home), dict.fromkeys(jobs)))
    out = writable(home if out is None else out)
    write_png(out / "miniature.png", _picture(home))
    write_atomic(out / "miniature.md", page(home, config))
    return out / "miniature.md"


def _carry_out(arm: str, seed: int, steps: int, home: Path) -> None:
    """One run and its evaluation, each in a process of its own, as a user would start them."""
    name = _name(arm, seed)
    if (home / name / "evaluation.json").exists():
        return
    changes = {
        "name": name,
        "seed": seed,
        "loop.steps": steps,
        "preview.every": steps,
        "runtime.device": "cpu",
        "runtime.threads": 1,
        "track.progress": "false",
        "track.tensorboard": "false",
    }
    if arm not in ("digits-sit", "digits-naive"):
        changes["teachers.0.seed"] = seed
    options = [word for field, value in changes.items() for word in (f"--{field}", str(value))]
    for command in (["train", arm, *options, "--runs", str(home)], ["evaluate", str(home / name)]):
        done = subprocess.run(
            [sys.executable, "-m", "repae", *command],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise UserError(f"`repae {' '.join(command)}` failed: {(done.stderr or done.stdout)[-2000:]}")
    print(f"{name}: done", file=sys.stderr)


def _name(arm: str, seed: int) -> str:
    return f"{arm}-s{seed}"


def figures(folder: Path) -> dict[str, Any]:
    """One run's figures, with the CPU time of a training step; the last log line, which holds the preview, apart."""
    found = json.loads((folder / "evaluation.json").read_text())
    rows = read_metrics(folder / "metrics.jsonl")
    first, last = rows[0], rows[-2]
    cpu = last["wall"]["cpu_seconds"] - first["wall"]["cpu_seconds"]
    loss = statistics.fmean(row["denoising_loss"] for row in rows[-LAST_ROWS:])
    return {**found, "cpu_ms": 1000 * cpu / (last["step"] - first["step"]), "denoising_loss": loss}


def page(home: Path, config: MiniatureConfig) -> str:
    """The comparison as Markdown: the command, the table, how to read it, the protocol."""
    results = {arm: [figures(home / _name(arm, seed)) for seed in range(config.seeds)] for arm in ARMS}
    head = ["", *(title for title, _ in COLUMNS.values())]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for arm, words in ARMS.items():
        cells = [_cell([run[key] for run in results[arm]], digits) for key, (_, digits) in COLUMNS.items()]
        lines.append("| " + " | ".join([words, *cells]) + " |")
    example = results["digits"][0]
    protocol = {key: value for key, value in example["protocol"].items() if key != "recipe"}
    floor = statistics.fmean(run["fd_floor"] for runs in results.values() for run in runs)
    return _PAGE.format(
        seeds=config.seeds,
        steps=config.steps,
        table="\n".join(lines),
        floor=floor,
        last=LAST_ROWS * 10,
        images=protocol["images"],
        cpu=json.loads((home / _name("digits", 0) / "environment.json").read_text())["cpu"],
        protocol=json.dumps(protocol, indent=1),
        **_verdict(results),
    )


def _cell(values: list[float], digits: int) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.{digits}f} ± {spread:.{digits}f}"


def _verdict(results: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """How REPA-E stands against REPA and against the control at the same seeds, counted and not interpreted."""

    def wins(rival: str, key: str, better: int) -> str:
        pairs = zip(results["digits"], results[rival], strict=True)
        count = sum(better * (ours[key] - theirs[key]) > 0 for ours, theirs in pairs)
        return f"{count} of {len(results['digits'])}"

    cost = statistics.fmean(run["cpu_ms"] for run in results["digits"])
    repa = statistics.fmean(run["cpu_ms"] for run in results["digits-repa"])
    return {
        "accuracy_wins": wins("digits-repa", "accuracy", 1),
        "fd_wins": wins("digits-repa", "fd", -1),
        "coverage_wins": wins("digits-repa", "coverage", 1),
        "control_accuracy": wins("digits-control", "accuracy", 1),
        "control_fd": wins("digits-control", "fd", -1),
        "control_coverage": wins("digits-control", "coverage", 1),
        "cost": f"{cost / repa:.1f}",
    }


@torch.no_grad()
def _picture(home: Path) -> Any:
    """One row of unguided digits for each arm, in the order of the table, from the same noise and labels."""
    rows = []
    precision = Precision("fp32", torch.device("cpu"))
    for arm in ARMS:
        run = load(home / _name(arm, 0))
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


_PAGE = """\
# The paper in miniature

    make miniature

trains five arms on the 1,797 embedded digits, {seeds} seeds each, {steps} steps of 64 images, and wrote this page.
Every arm of a seed shares the teacher (trained without labels), the autoencoder warmed up for 200 steps, the initial
denoiser and the order of the data. Mean ± standard deviation over the seeds; all figures without guidance.

{table}

FD is the Frechet distance in the features of one fixed classifier, {images} generated against 1,797 real images; two
random halves of the real images are {floor:.2f} apart (the floor). Accuracy is that classifier's on generated images,
given their label. CPU time: one thread of {cpu}.

![One row per arm, in the order of the table: two unguided images of each digit from the same noise](miniature.png)

## What it says, and what not

- Against REPA at the same seed and the same number of steps, REPA-E has the higher accuracy in {accuracy_wins} seeds,
  the higher coverage in {coverage_wins}, and the lower FD in {fd_wins}.
- A step of REPA-E costs {cost} times the CPU time of a step of REPA here, since it trains the autoencoder as well: the
  comparison is per step, not per unit of compute.
- The control aligns to the mean tokens of each (class, position), which hold nothing of the single image. What it
  reaches is owed to the class, not to the representation. Against it REPA-E has the higher accuracy in
  {control_accuracy} seeds, the higher coverage in {control_coverage}, the lower FD in {control_fd}.
- The frozen arms keep the autoencoder of the warm-up; the joint arms train theirs on, hence the PSNR.
- The naive arm lets the diffusion loss into the autoencoder. Read its diffusion loss (mean of the last {last} steps)
  beside its accuracy: that loss is no measure of success.
- These are 8 x 8 scans enlarged to 32 px, a teacher of 0.3 M parameters trained on the very same images, and three
  seeds. It shows the mechanism; it does not reproduce the paper.

## Protocol

```json
{protocol}
```
"""
