"""`repae evaluate` draws the gallery, measures autoencoders alone, and its figures appear during training too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from errors import assert_tells, refused
from PIL import Image

from repae.cli import main
from repae.commands import hooks
from repae.commands.gallery import said_guidance, said_sampler
from repae.config import UserError
from repae.flow import DormandPrince, Euler, EulerMaruyama, Guidance
from repae.recipes.catalogue import compose
from repae.runtime.checkpoint import CheckpointStore

STEPS = 4
TINY = {
    "data.resolution": 16,
    "loop.steps": STEPS,
    "loop.batch-size": 8,
    "loop.checkpoint-every": 2,
    "loop.log-every": 1,
    "start.kind": "scratch",
    "backbone.hidden-size": 16,
    "backbone.depth": 2,
    "backbone.num-heads": 2,
    "backbone.encoder-depth": 1,
    "backbone.projector-dim": 8,
    "preview.sampler.steps": 1,
    "preview.per-class": 1,
    "evaluation.images": 40,
    "evaluation.guided-images": 10,
    "evaluation.sampler.steps": 1,
    "evaluation.comparison.resamples": 0,
    "track.tensorboard": "false",
    "track.progress": "false",
    "runtime.device": "cpu",
}
WATCHED = {
    "teachers.0.steps": 1,
    "teachers.0.batch-size": 8,
    "evaluation.every": 1,
    "evaluation.quick-images": 24,
    "loop.best.metric": "eval_fd_teacher",
}


def train(runs: Path, recipe: str, name: str, **more: Any) -> Path:
    options = {**TINY, **more}
    words = [word for field, value in options.items() for word in (f"--{field}", str(value))]
    assert main(["train", recipe, *words, "--name", name, "--runs", str(runs)]) == 0
    return runs / name


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "wall"} for line in lines]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A joint run on digits of 16 px, which the classifier cannot take, evaluated after every step."""
    return train(tmp_path_factory.mktemp("runs"), "digits", "watched", **WATCHED)


def test_figures_during_training_choose_the_best_checkpoint(watched: Path) -> None:
    """Every row has the figures, and the checkpoint of the lowest stands marked, with its own value."""
    found = {row["step"]: row["eval_fd_teacher"] for row in rows(watched)}
    assert list(found) == [1, 2, 3, 4]
    assert {"eval_psnr", "eval_rfd_teacher", "eval_latent_probe_accuracy", "sit_loss"} <= rows(watched)[0].keys()
    best = json.loads((watched / "checkpoints" / "best.json").read_text())
    assert best == {"step": min(found, key=found.__getitem__), "metric": {"eval_fd_teacher": min(found.values())}}
    kept = CheckpointStore(watched / "checkpoints").best()
    assert kept is not None and kept.step == best["step"]
    report = (watched / "report.html").read_text()
    assert f"The best checkpoint by eval_fd_teacher is that of step {best['step']}" in report


def test_a_killed_run_finds_the_same_figures(watched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted in the middle of an evaluation and gone on with: the same rows and the same best checkpoint."""
    whole = hooks.Monitor.__call__

    class Killed(BaseException): ...

    def dying(self: hooks.Monitor, step: int) -> dict[str, float]:
        if step == 3:
            raise Killed
        return whole(self, step)

    monkeypatch.setattr(hooks.Monitor, "__call__", dying)
    with pytest.raises(Killed):
        train(watched.parent, "digits", "killed", **WATCHED)
    monkeypatch.setattr(hooks.Monitor, "__call__", whole)
    folder = train(watched.parent, "digits", "killed", **WATCHED)
    assert rows(folder) == rows(watched)
    assert (folder / "checkpoints" / "best.json").read_text() == (watched / "checkpoints" / "best.json").read_text()


def test_evaluating_changes_no_weight(watched: Path) -> None:
    """The same run without any evaluation ends in the same bytes, and nothing passing fills the cache."""
    names = {name: value for name, value in WATCHED.items() if name.startswith("teachers")}
    plain = train(watched.parent, "digits", "plain", **names)
    ends = [sorted((folder / "checkpoints" / "step-0000004").glob("*.safetensors")) for folder in (plain, watched)]
    assert [a.read_bytes() for a in ends[0]] == [b.read_bytes() for b in ends[1]] and len(ends[0]) > 4
    kept = [path.name for path in (watched.parent / "cache").glob("features-*")]
    assert len(kept) == 3, kept  # of real images: the reference, those reconstructed, those whose latents are seen


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"loop.best.metric": "eval_fd"}, ["loop.best.metric", "'eval_fd'", "set evaluation.every"]),
        ({"evaluation.every": 0}, ["evaluation.every", 0, "at least 1"]),
    ],
)
def test_a_best_figure_without_an_evaluation_is_refused(options: dict[str, str], facts: list[object]) -> None:
    """Before anything is read."""
    with refused(UserError, *facts):
        compose("digits", {name: str(value) for name, value in options.items()})


def test_a_figure_that_no_evaluation_finds_is_refused(watched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the first step, with the names that there are."""
    wrong = {**WATCHED, "loop.best.metric": "eval_fd_teacer"}
    words = [word for field, value in {**TINY, **wrong}.items() for word in (f"--{field}", str(value))]
    assert main(["train", "digits", *words, "--name", "wrong", "--runs", str(watched.parent)]) == 2
    assert_tells(capsys.readouterr().err, "'eval_fd_teacer'", "did you mean 'eval_fd_teacher'")
    assert not (watched.parent / "wrong" / "metrics.jsonl").exists()


@pytest.fixture(scope="module")
def evaluated(watched: Path) -> Path:
    assert main(["evaluate", str(watched)]) == 0
    return watched


def test_every_picture_is_drawn_and_shown(evaluated: Path) -> None:
    """Class grid, scales, both ways between, checkpoints, nearest images; each caption says what made it."""
    folder = evaluated / "samples" / "gallery"
    found = json.loads((folder / "gallery.json").read_text())
    names = ["classes", "scales", "between-seeds", "between-classes", "checkpoints", "nearest-teacher"]
    assert [entry["file"] for entry in found["pictures"]] == [f"{name}.png" for name in names] and not found["notes"]
    report = (evaluated / "report.html").read_text()
    for entry in found["pictures"]:
        with Image.open(folder / entry["file"]) as picture:
            assert min(picture.size) > 100
        for words in ("Sampler euler, 1 steps", "weights 'ema'", "seed 0"):
            assert words in entry["caption"]
        assert "guidance" in entry["caption"] and f"<h3>{entry['title']}</h3>" in report


def test_without_pictures_none_is_drawn(evaluated: Path, tmp_path: Path) -> None:
    """--pictures false; other weights than the recipe's have a gallery of their own."""
    assert main(["evaluate", str(evaluated), "--bundle", "live", "--pictures", "false"]) == 0
    assert not (evaluated / "samples" / "gallery-live").exists() and (evaluated / "evaluation-live.json").exists()


def test_an_autoencoder_alone_is_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Reconstruction and latents with a protocol that says nothing of sampling; figures during training as well."""
    sizes = {name: value for name, value in TINY.items() if not name.startswith(("backbone", "start"))}
    words = [word for field, value in sizes.items() for word in (f"--{field}", str(value))]
    watch = ["--evaluation.every", "2", "--loop.best.metric", "eval_psnr", "--loop.best.goal", "max"]
    assert main(["train", "digits-vae", *words, *watch, "--name", "vae", "--runs", str(tmp_path)]) == 0
    folder = tmp_path / "vae"
    assert main(["evaluate", str(folder)]) == 0
    found = json.loads((folder / "evaluation.json").read_text())
    assert {"psnr", "ssim", "fixed_pattern", "latent_channels_used", "latent_high_frequency"} <= found.keys()
    assert not {"fd", "accuracy"} & found.keys()
    assert "sampler" not in found["protocol"] and found["protocol"]["bundle"] == "ema"
    latents = found["latents"]
    assert latents["normalised"] is False and len(latents["std"]) == len(latents["mean"]) > 1
    assert sum(latents["spectrum"]) == pytest.approx(1)
    quick = {row["step"]: row["eval_psnr"] for row in rows(folder) if "eval_psnr" in row}
    assert list(quick) == [2, 4] and quick[4] == pytest.approx(found["psnr"], abs=1e-6)
    assert main(["evaluate", str(folder), "--bundle", "live"]) == 0
    live = json.loads((folder / "evaluation-live.json").read_text())
    assert live["protocol"]["bundle"] == "live" and live["psnr"] != found["psnr"]
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--bundle", "reference"]) == 2
    assert_tells(capsys.readouterr().err, folder, "ema, live", "'reference'")


def test_what_captions_say() -> None:
    """Every setting that moves a pixel, and nothing else."""
    assert said_sampler(Euler(steps=25)) == "Sampler euler, 25 steps"
    assert said_sampler(EulerMaruyama(steps=250)) == "Sampler euler-maruyama, 250 steps, last mean"
    assert said_sampler(DormandPrince(rtol=0.01)) == "Sampler dopri5, rtol 0.01, atol 1e-06"
    assert said_guidance(Guidance(scale=1.5, low=0.1, high=0.9)) == "guidance 1.5 for t in [0.1, 0.9]"
    assert said_guidance(Guidance()) == "no guidance"
