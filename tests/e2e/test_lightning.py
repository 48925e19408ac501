"""A second backbone through every command: trained, resumed, sampled, evaluated, exported, and chosen by its kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from repae.cli import main

SMALL = """
--backbone.hidden-size=16 --backbone.depth=2 --backbone.num-heads=2 --backbone.encoder-depth=1
--backbone.projector-dim=8 --teachers.0.steps=2 --teachers.0.batch-size=16 --start.steps=2 --start.batch-size=8
--loop.batch-size=8 --loop.log-every=1 --preview.sampler.steps=2 --preview.classes=2 --preview.per-class=1
--track.tensorboard=false --track.progress=false --runtime.device=cpu --evaluation.images=12
--evaluation.guided-images=12 --evaluation.sampler.steps=2 --evaluation.comparison.resamples=2
"""


def train(runs: Path, recipe: str, name: str, steps: int, *words: str) -> Path:
    falls = ["--optimisers.denoiser.schedule.kind=constant", "--optimisers.vae.schedule.kind=constant"]
    options = [*SMALL.split(), *falls, "--name", name, f"--loop.steps={steps}", "--runs", str(runs), *words]
    assert main(["train", recipe, *options]) == 0
    return runs / name


def test_a_run_with_lightning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Going on at step 2 gives what never stopping gives; then every command that opens a run."""
    whole = train(tmp_path, "digits-lightning", "whole", 3)
    train(tmp_path, "digits-lightning", "halved", 2)
    halved = train(tmp_path, "digits-lightning", "halved", 3)
    for part in ("denoiser", "ema_denoiser", "vae", "optimiser_denoiser"):
        one, other = (load_file(run / f"checkpoints/step-0000003/{part}.safetensors") for run in (whole, halved))
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert "backbone.blocks.0.mlp.w12.weight" in load_file(whole / "checkpoints/step-0000003/denoiser.safetensors")
    assert main(["sample", str(whole), "--num", "4", "--sampler.steps", "2", "--out", str(tmp_path / "drawn")]) == 0
    assert main(["evaluate", str(whole)]) == 0
    assert json.loads((whole / "evaluation.json").read_text(encoding="utf-8"))
    assert main(["export", str(whole), "--out", str(tmp_path / "exported")]) == 0
    assert main(["export", str(whole), "--format", "reference", "--out", str(tmp_path / "back")]) == 2
    assert "error:" in capsys.readouterr().err


def test_kinds_change_on_the_command_line(tmp_path: Path) -> None:
    """Another kind brings its own fields; a run of one kind is none of the other."""
    train(tmp_path, "digits", "other", 1, "--backbone.kind=lightning", "--backbone.qk-norm=true")
    text = (tmp_path / "other/recipe.yaml").read_text(encoding="utf-8")
    assert "  kind: lightning\n" in text and "  qk_norm: true\n" in text
    assert (
        main(["train", "digits-sit", *SMALL.split(), "--init-from", str(tmp_path / "other"), "--runs", str(tmp_path)])
        == 2
    )
