"""The dry run and the training agree, whatever the recipe: what is listed refuses, what is not listed starts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from repae.cli import main
from repae.commands import train as training
from repae.config import UserError
from repae.models.autoencoders import DiffusersConfig, TinyConfig
from repae.models.discriminator import PatchGAN
from repae.models.perceptual import LpipsNetwork
from repae.models.teachers.embedded import EmbeddedTeacher, EmbeddedTeacherConfig
from repae.recipes.catalogue import find
from repae.recipes.recipe import Recipe
from repae.runs.preflight.check import preflight
from repae.training.loop import Outcome
from repae.training.setup import DiscriminatorConfig

SMALL: dict[str, Any] = {
    "loop.steps": 2,
    "loop.batch_size": 8,
    "start": {"kind": "scratch"},
    "teachers": ({"kind": "embedded", "steps": 1, "batch_size": 8, "widths": (8, 8, 16), "heads": 2},),
    "vae": {"kind": "tiny"},
    "backbone.hidden_size": 16,
    "backbone.depth": 2,
    "backbone.num_heads": 2,
    "backbone.projector_dim": 8,
    "backbone.encoder_depth": 1,
    "discriminator": {"ndf": 4, "n_layers": 2},
    "runtime.device": "cpu",
    "runtime.threads": 1,
    "track.progress": False,
    "track.tensorboard": False,
}
KL: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "norm_num_groups": 4,
    "latent_channels": 4,
}


@dataclass(frozen=True)
class Files:
    """Where the files lie that some recipes name, and where they are trained."""

    files: Path
    runs: Path


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Weights that fit, weights that do not, images, and a run of another recipe in the folder ``taken``."""
    files = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    torch.save(TinyConfig().build(3).state_dict(), files / "tiny.pt")
    torch.save(TinyConfig(base_channels=8).build(3).state_dict(), files / "other.pt")
    DiffusersConfig(architecture=KL).build(3).model.save_pretrained(files / "kl")
    torch.save(PatchGAN(DiscriminatorConfig(ndf=4, n_layers=2).patch_gan(3)).state_dict(), files / "disc.pt")
    vgg = LpipsNetwork(load=False).layers.state_dict()
    torch.save({f"features.{name}": tensor for name, tensor in vgg.items()}, files / "vgg.pth")
    for channels in (1, 3):
        EmbeddedTeacher(EmbeddedTeacherConfig(image_channels=channels)).save(files / f"teacher{channels}")
    for kind in ("cat", "dog"):
        (files / "images" / kind).mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", (32, 32), (20 * number, 0, 0)).save(files / "images" / kind / f"{number}.png")
    return Files(files, tmp_path_factory.mktemp("runs"))


def small(files: Path) -> Recipe:
    """A run on sixteen images."""
    data = {"kind": "folder", "path": str(files / "images"), "resolution": 32}
    return find("digits").replace(**{**SMALL, "data": data})


def changes(files: Path) -> st.SearchStrategy[dict[str, Any]]:
    """Some of what may be wrong with a recipe, and some of what may not."""
    gone = str(files / "gone")

    def one(name: str, *values: Any) -> st.SearchStrategy[dict[str, Any]]:
        return st.sampled_from([{name: value} for value in values])

    named, lpips = {"kind": "embedded"}, {"kind": "lpips"}
    parts = [
        one("method", *({"kind": kind} for kind in ("repa", "naive", "vae"))),
        one("method", {"kind": "vae", "train_autoencoder": False}),
        one("vae", {"kind": "diffusers", "path": str(files / "kl")}, {"kind": "diffusers", "path": gone + "/kl"}),
        one(
            "start",
            {"kind": "warmup", "steps": 1, "batch_size": 8},
            *({"kind": "weights", "path": str(files / name)} for name in ("tiny.pt", "other.pt", "gone.pt")),
            {"kind": "run", "path": gone},
        ),
        one(
            "teachers",
            (),
            *({**named, "folder": str(files / name)} for name in ("teacher1", "teacher3", "gone", "images")),
        ),
        one("losses.perceptual_weight", 0.5),
        one("perceptual", {"kind": "teacher"}, *({**lpips, "vgg": str(files / name)} for name in ("vgg.pth", "no"))),
        one("losses.discriminator_weight", 0.1),
        one("discriminator.weights", str(files / "disc.pt"), str(files / "vgg.pth"), gone),
        one("data", {"kind": "folder", "path": gone, "resolution": 32}),
        one("data.resolution", 40, 28),
        one("num_classes", 2, 10),
        one("latent_norm.statistics", "published"),
        one("backbone.num_heads", 3),
        one("backbone.patch_size", 1),
        one("backbone.encoder_depth", 3),
        one("loop.accumulate", 2, 3),
        one("runtime.device", "cuda"),
        one("class_mean_targets", True),
        one("latents", {"path": gone}),
        one("name", "taken"),
    ]  # fmt: skip
    # A few at a time: with all of them at once nothing would ever start.
    chosen = st.lists(st.sampled_from(range(len(parts))), max_size=2, unique=True)
    return chosen.flatmap(lambda numbers: st.tuples(*(parts[number] for number in numbers))).map(
        lambda found: {name: value for part in found for name, value in part.items()}
    )


def composed(files: Path, change: dict[str, Any]) -> Recipe | None:
    """The recipe, unless its schema refuses it."""
    try:
        base = small(files)
        for name, value in change.items():
            base = base.replace(**{name: value})
        return base
    except (UserError, ValueError):
        return None


def test_what_is_listed_refuses_and_what_is_not_starts(here: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the promise of a dry run in both directions, and that nothing is made where a recipe is refused."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(training, "_loop", lambda *arguments: Outcome(0, finished=False))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    taken = here.runs / "taken"
    with pytest.raises(training.Interrupted):
        training.train(small(here.files).replace(name="taken", seed=5), here.runs)
    (taken / "checkpoints" / "step-0000001").mkdir(parents=True)
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()

    # Not shrunk: a failing example is small as it is, and each one trains.
    @settings(max_examples=40, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(changes(here.files))
    def agree(change: dict[str, Any]) -> None:
        recipe = composed(here.files, change)
        if recipe is None:
            outcomes["refused by the schema"] += 1
            return
        blocking = [problem for problem in preflight(recipe, here.runs).problems if problem.blocks]
        folder, before = here.runs / recipe.name, set(here.runs.iterdir())
        if blocking:
            with pytest.raises(UserError) as caught:
                training.train(recipe, here.runs)
            assert all(problem.text in str(caught.value) for problem in blocking)
            assert set(here.runs.iterdir()) == before
        else:
            with pytest.raises(training.Interrupted):
                training.train(recipe, here.runs)
            assert (folder / "recipe.yaml").is_file()
        outcomes["refused" if blocking else "started"] += 1
        reasons.update({problem.part for problem in blocking})

    agree()
    assert outcomes["started"] >= 8 and outcomes["refused"] >= 8, outcomes
    assert len(reasons) >= 6, reasons  # parts of the recipe that something was wrong with


def test_several_problems_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects whoever repairs a recipe: one answer names all that is wrong, on the command line as in Python."""
    words = ["train", "digits", "--runs", str(tmp_path / "runs"), "--losses.perceptual-weight", "1"]
    assert main([*words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "perceptual.kind is 'none'" in said and "it can start" not in said
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main([*words, "--backbone.num-heads", "5", "--loop.accumulate", "3"]) == 2
    said = capsys.readouterr().err
    assert all(part in said for part in ("3 reasons", "perceptual.kind", "num_heads 5", "3 micro-batches"))
    assert not (tmp_path / "runs").exists()


def test_a_switched_off_hub_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects machines without a connection: what cannot be fetched is in the way, elsewhere it is to be fetched."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    recipe = find("digits").replace(teachers="dinov2-b")
    for offline in (False, True):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
        (weights,) = (problem for problem in preflight(recipe).problems if problem.part == "teacher dinov2-b")
        assert weights.blocks == offline and "--teachers.0.weights FILE" in weights.text


def test_a_folder_of_another_run_is_in_the_way(tmp_path: Path) -> None:
    """Protects a run from another one of the same name; its own recipe goes on."""
    recipe = find("digits").replace(**SMALL)
    folder = tmp_path / recipe.name
    (folder / "checkpoints" / "step-0000001").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    assert preflight(recipe, tmp_path).problems == ()
    (problem,) = preflight(recipe.replace(seed=9), tmp_path).problems
    assert problem.part == "folder" and "seed was 0, is now 9" in problem.text
