"""The switches of the alignment in whole runs: trained, opened again and sampled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from repae.commands.train import train
from repae.models.projector import ConvProjector
from repae.recipes.catalogue import find
from repae.runs.open import open_run
from repae.runs.preflight.dry_run import dry_run
from repae.runtime.schedules import Until

SMALL = {
    "start": {"kind": "scratch"},
    "loop.steps": 4,
    "loop.batch_size": 8,
    "loop.log_every": 1,
    "backbone.hidden_size": 16,
    "backbone.num_heads": 2,
    "backbone.projector": {"kind": "conv"},
    "method.spatial_norm": {"gamma": 1.0},
    "method.align_schedule": Until(stop=2),
    "preview.sampler.steps": 1,
    "preview.classes": 2,
    "preview.per_class": 2,
    "track.tensorboard": False,
    "track.progress": False,
    "runtime.device": "cpu",
    "optimisers.denoiser.schedule": {"kind": "constant"},
    "optimisers.vae.schedule": {"kind": "constant"},
}


@pytest.mark.slow
def test_a_run_with_every_switch(tmp_path: Path) -> None:
    """Self teacher, convolutional projector, normalised tokens, an end: it logs, opens and samples."""
    recipe = find("digits-sra").replace(**SMALL)
    folder = train(recipe, tmp_path)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = {row["step"]: (row["align_factor"], row["proj_loss"] != 0) for row in rows if "proj_loss" in row}
    assert losses == {1: (1.0, True), 2: (1.0, True), 3: (0.0, False), 4: (0.0, False)}
    run = open_run(folder)
    assert run.step == 4 and isinstance(run.bundle.denoiser.projectors[0], ConvProjector)
    assert run.sample(torch.tensor([1, 2])).shape == (2, 1, 32, 32)


def test_the_plan_names_the_self_teacher() -> None:
    """It costs no parameters, so it stands in a line of its own."""
    assert "self: the average's own tokens after block 4" in str(dry_run(find("digits-sra")))
