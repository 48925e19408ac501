"""Folders that version 0.1 wrote open, go on and draw the same, for ever; how they were made is in their make.sh."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import repae
from repae.cli import main
from repae.recipes.catalogue import find
from repae.runs.open import open_run
from repae.runtime.checkpoint import CheckpointStore
from repae.runtime.migration import current_recipe
from repae.runtime.precision import Precision
from repae.sampling import generate

WRITTEN = Path(__file__).parents[1] / "written_by_0_1"
FIRST = re.search(r'SMALL="(.*?)"', (WRITTEN / "make.sh").read_text(encoding="utf-8"), flags=re.DOTALL)
assert FIRST is not None
SMALL = FIRST[1].replace("--sit.", "--backbone.").split()
ELSEWHERE = [
    word
    for pair in zip(SMALL[::2], SMALL[1::2])
    if not pair[0].startswith(("--start", "--data.resolution"))
    for word in pair
]
LABELS, SEED, STEPS = torch.tensor([0, 1, 0, 1]), 3, 4


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folders, which is the working directory: the recipes say ``images``."""
    shutil.copytree(WRITTEN, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # the recipes say "auto", and it was a CPU
    return tmp_path


def rows(path: Path) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {line["step"]: {name: value for name, value in line.items() if name != "wall"} for line in lines}


def apart(one: Any, other: Any) -> int:
    return int(abs(one.astype(int) - other.astype(int)).max())


def present(name: str) -> str:
    return name.replace("sit.", "backbone.", 1) if name.startswith("sit.") else name


@pytest.mark.parametrize(
    "words", [["folder", "--data", "images", *SMALL, "--name", "joint"], ["kept/joint/recipe.yaml"]]
)
def test_a_run_goes_on_as_it_would_have(home: Path, words: list[str]) -> None:
    """By the command that began it and by its recipe: to the metrics and weights that 0.1 reached, with its teacher."""
    cache = sorted(path.name for path in Path("kept/cache").glob("teacher-*"))
    assert main(["train", *words, "--loop.steps", "5", "--runs", "kept"]) == 0
    before, now = rows(home / "joint-steps-4-and-5.jsonl"), rows(home / "kept/joint/metrics.jsonl")
    for step, figures in before.items():
        assert now[step].keys() >= figures.keys()
        for name, value in figures.items():
            assert now[step][name] == pytest.approx(value, rel=1e-4, abs=1e-5), (step, name)
    newest = home / "kept/joint/checkpoints/step-0000005"
    for part in ("denoiser", "vae"):
        was, found = (
            load_file(home / f"joint-at-5-weights/{part}.safetensors"),
            load_file(newest / f"{part}.safetensors"),
        )
        assert {present(name) for name in was} == found.keys()
        for name, tensor in was.items():
            # Bit-equal where the processor is the one of that day; a tenth of one update's length on any other.
            torch.testing.assert_close(found[present(name)], tensor, rtol=0, atol=1e-4)
    assert cache == sorted(path.name for path in Path("kept/cache").glob("teacher-*"))
    assert "backbone:\n  kind: sit\n" in Path("kept/joint/recipe.yaml").read_text(encoding="utf-8")


def test_the_others_go_on(home: Path) -> None:
    """An autoencoder alone, and a denoiser on latents that 0.1 cached."""
    for name in ("alone", "frozen"):
        assert main(["train", f"kept/{name}/recipe.yaml", "--loop.steps", "4", "--runs", "kept"]) == 0
        assert sorted(rows(home / f"kept/{name}/metrics.jsonl")) == [1, 2, 3, 4]
    assert open_run("kept/alone").step == open_run("kept/frozen").step == 4


def test_a_run_draws_the_same_pixels(home: Path) -> None:
    """From the command line, into a new folder and into the one that 0.1 filled; the bundle alone; the export."""
    command = ["sample", "kept/joint", "--num", str(len(LABELS)), "--seed", str(SEED), "--sampler.steps", str(STEPS)]
    assert main([*command, "--out", "again"]) == main([*command, "--out", "samples"]) == 0
    before, now = np.load("samples/samples.npz"), np.load("again/samples.npz")
    assert np.array_equal(before["labels"], now["labels"]) and np.array_equal(before["labels"], LABELS.numpy())
    assert apart(now["arr_0"], before["arr_0"]) <= 1
    for folder in ("kept/joint", "exported"):
        run = repae.load(folder)
        sampler = run.recipe.preview.sampler.replace(steps=STEPS)
        drawn = generate(
            run.bundle, LABELS, sampler=sampler, path=run.recipe.path, precision=Precision("fp32", torch.device("cpu")),
            guidance=run.recipe.preview.guidance, seed=SEED,
        )  # fmt: skip
        assert apart(drawn.permute(0, 2, 3, 1).numpy(), before["arr_0"]) <= 1


def test_an_export_opens_with_diffusers_alone(home: Path) -> None:
    """By the code that 0.1 put beside the weights."""
    from diffusers import DiffusionPipeline

    pipe: Any = DiffusionPipeline.from_pretrained("exported", custom_pipeline="exported", trust_remote_code=True)
    pipe.set_progress_bar_config(disable=True)
    drawn = pipe(LABELS, seed=SEED, num_inference_steps=STEPS, output_type="pt").images
    before = np.load("samples/samples.npz")["arr_0"]
    assert apart(drawn.permute(0, 2, 3, 1).numpy(), before) <= 1


def test_they_are_inspected_exported_and_started_from(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every other door: inspect, export, evaluate's reader, --init-from, the caches as data."""
    for folder in ("kept/joint", "kept/alone", "exported", "latents", "shards"):
        assert main(["inspect", folder]) == 0
    assert "cached latents" in capsys.readouterr().out
    assert main(["export", "kept/joint", "--out", "anew"]) == 0
    ours, theirs = (
        load_file(Path(name) / "transformer/diffusion_pytorch_model.safetensors") for name in ("anew", "exported")
    )
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    for source in ("kept/joint", "exported"):
        words = ["folder", "--data", "shards", *ELSEWHERE, "--loop.steps", "1", "--name", Path(source).name]
        assert main(["train", *words, "--init-from", source, "--runs", "new"]) == 0


def test_old_names_are_known_in_files_only(home: Path) -> None:
    """A recipe of 0.1 is the same recipe; on the command line the old field is refused with the new one's name."""
    saved = CheckpointStore("kept/joint/checkpoints").describe("kept/joint/checkpoints/step-0000003").meta["recipe"]
    assert "sit" not in saved and saved["backbone"]["kind"] == "sit"
    assert find("kept/joint").model_dump(mode="json") == saved == current_recipe(saved)
