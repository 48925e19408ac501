from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from errors import assert_tells, refused
from PIL import Image

from repae.cli import Arguments, main
from repae.commands.sample import chosen_labels, folder_name, identity, sample_run
from repae.commands.sample_settings import PRESETS, RunAutoguidance, SampleSettings, sample_settings
from repae.config import UserError, fields, json_digest
from repae.flow import UNGUIDED, EulerMaruyama, Guidance, Heun
from repae.recipes.recipe import RuntimeConfig
from repae.runs.context import RunContext
from repae.runs.open import open_run
from repae.runtime.precision import Precision

TINY = {
    "start.kind": "scratch",
    "loop.steps": 3,
    "loop.checkpoint-every": 1,
    "loop.keep-last": 3,
    "loop.batch-size": 8,
    "backbone.hidden-size": 16,
    "backbone.depth": 2,
    "backbone.num-heads": 2,
    "preview.sampler.steps": 1,
    "preview.per-class": 1,
    "track.tensorboard": "false",
    "track.progress": "false",
    "runtime.device": "cpu",
}
QUICK = {"sampler.steps": 1, "progress": "false"}


def words(options: dict[str, Any]) -> list[str]:
    return [word for field, value in options.items() for word in (f"--{field}", str(value))]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps, a checkpoint after each, with a null class, on a frozen autoencoder."""
    runs = tmp_path_factory.mktemp("runs")
    assert main(["train", "digits-sit", *words(TINY), "--name", "tiny", "--runs", str(runs)]) == 0
    return runs / "tiny"


def error_of(folder: Path, options: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["sample", str(folder), *words({**QUICK, **options})]) == 2
    return capsys.readouterr().err


BASE = SampleSettings(num=20, classes=(1, 2), guidance=Guidance(scale=1.5, low=0.1, high=0.9), sampler=EulerMaruyama())
CHANGES: dict[str, Any] = {
    "num": 21,
    "classes": (1, 3),
    "labels": "random",
    "seed": 1,
    "sampler.kind": "euler",
    "sampler.steps": 251,
    "sampler.last": "tweedie",
    "sampler.state": "float32",
    "guidance.kind": "autoguidance",
    "guidance.scale": 1.6,
    "guidance.low": 0.2,
    "guidance.high": 0.8,
    "bundle": "live",
    "step": 2,
    "precision": "bf16",
    "format": "png",
}
ELSEWHERE = {
    "per_class": ({"num": None, "per_class": 3}, {"num": None, "per_class": 4}),
    "sampler.guide_by_end": ({"sampler": Heun()}, {"sampler": Heun(guide_by_end=True)}),
    "sampler.rtol": ({"sampler.kind": "dopri5"}, {"sampler.kind": "dopri5", "sampler.rtol": 1e-4}),
    "sampler.atol": ({"sampler.kind": "dopri5"}, {"sampler.kind": "dopri5", "sampler.atol": 1e-4}),
    "sampler.max_steps": ({"sampler.kind": "dopri5"}, {"sampler.kind": "dopri5", "sampler.max_steps": 2}),
    "guidance.step": ({"guidance": RunAutoguidance(step=1)}, {"guidance": RunAutoguidance(step=2)}),
}
FREE = {"device", "batch_size", "part", "out", "progress"}
"""Settings that change no image; the device is part of the identity by its kind, of which there is one here."""

WHOLE = {"sampler", "guidance", "guidance.run"}
"""Whole parts; and the folder of a weaker run, of which the weights are part of the identity and not the name."""


def identity_of(run: Path, settings: SampleSettings) -> dict[str, Any]:
    opened = open_run(run, settings.bundle, step=settings.step)
    guidance = settings.guidance
    weak = open_run(run, opened.bundle.name, step=guidance.step) if isinstance(guidance, RunAutoguidance) else None
    cpu = torch.device("cpu")
    context = RunContext(cpu, Precision(settings.precision or "fp32", cpu), RuntimeConfig(), run.parent)
    return identity(opened, settings, context, weak)


def test_any_changed_setting_is_another_identity(run: Path) -> None:
    """No field can be forgotten: each is either part of the identity, and of the folder's name, or changes no image."""
    assert set(fields(SampleSettings)) == {*CHANGES, *ELSEWHERE, *FREE, *WHOLE}
    base = identity_of(run, BASE)
    seen = {json_digest(base)}
    for name, value in CHANGES.items():
        more = {"guidance.step": 1} if value == "autoguidance" else {}
        seen.add(json_digest(identity_of(run, BASE.replace(**{name: value}, **more))))
    assert len(seen) == 1 + len(CHANGES)
    for before, after in ELSEWHERE.values():
        names = {folder_name(identity_of(run, BASE.replace(**changes))) for changes in (before, after)}
        assert len(names) == 2
    for name, value in {"batch_size": 3, "part": "2/3", "out": "there", "progress": False, "device": "cpu"}.items():
        assert identity_of(run, BASE.replace(**{name: value})) == base


def test_the_name_of_a_folder_can_be_read(run: Path) -> None:
    """People see what is in it, and eight digits tell apart what they do not see."""
    name = folder_name(identity_of(run, BASE))
    assert name.startswith("step3-ema-euler-maruyama250-cfg1.5on0.1-0.9-20images-seed0-")
    weaker = BASE.replace(guidance=RunAutoguidance(scale=2, step=1), num=None, per_class=4, seed=5)
    assert "-auto2-4each-seed5-" in folder_name(identity_of(run, weaker))


def test_other_weights_are_another_identity(run: Path, tmp_path: Path) -> None:
    """A run that was trained on, or again, under the same name: its images are not those of before."""
    again = Path(shutil.copytree(run, tmp_path / "tiny"))
    assert identity_of(again, BASE) == identity_of(run, BASE)
    shutil.rmtree(again / "checkpoints" / "step-0000003")
    assert identity_of(again, BASE) != identity_of(run, BASE)


def test_a_folder_belongs_to_its_settings(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other settings are refused by name, images of unknown origin too; the same settings find the work done."""
    out = tmp_path / "out"
    options = {"num": 6, "out": out}
    assert main(["sample", str(run), *words({**QUICK, **options})]) == 0
    assert "6 images in " in capsys.readouterr().out
    before = (out / "samples.npz").read_bytes()
    assert main(["sample", str(run), *words({**QUICK, **options, "batch-size": 2})]) == 0
    assert "all 6 images were there" in capsys.readouterr().out
    line = error_of(run, {**options, "seed": 1, "sampler.steps": 2}, capsys)
    assert_tells(line, out, "sampler.steps was 1", 2, "seed was 0", 1, "another --out")
    (out / "manifest.json").unlink()
    assert_tells(error_of(run, options, capsys), out, "samples.npz", "manifest.json", "another --out")
    (out / "manifest.json").write_text("{")
    assert_tells(error_of(run, options, capsys), out / "manifest.json", "cannot be read", "another --out")
    assert (out / "samples.npz").read_bytes() == before


def test_without_a_folder_each_setting_has_its_own(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The simple use: rows of classes, in a folder of the run; another scale never finds the images of the first."""
    copy = Path(shutil.copytree(run, tmp_path / "tiny"))
    folders = []
    for scale in (1, 2):
        options = {**QUICK, "classes": "3,7", "per-class": 2, "guidance.scale": scale}
        assert main(["sample", str(copy), *words(options)]) == 0
        folders.append(Path(capsys.readouterr().out.strip().rpartition("done: ")[2]))
    assert folders[0] != folders[1] and {folder.parent for folder in folders} == {copy / "samples"}
    for folder in folders:
        assert np.load(folder / "samples.npz")["labels"].tolist() == [3, 3, 7, 7]
        assert Image.open(folder / "grid.png").size == (4 + 2 * 68, 4 + 2 * 68)
        assert json.loads((folder / "manifest.json").read_text())["run"] == str(copy)


@pytest.mark.slow
def test_parts_of_machines_that_do_not_know_each_other(run: Path, tmp_path: Path) -> None:
    """Each draws its share, in batches of its own size; the last finds all of it, and it is what one would draw."""
    settings = sample_settings(run, {**{k: str(v) for k, v in QUICK.items()}, "num": "10"})
    settings = settings.replace(batch_size=2, out=str(tmp_path / "parts"))
    first = sample_run(run, settings.replace(part="1/3"))
    assert "3 images in " in first.words and "7 of 10 images are missing still: the other parts of 1/3" in first.words
    assert "no image of this part was missing" in sample_run(run, settings.replace(part="1/3")).words
    sample_run(run, settings.replace(part="3/3", batch_size=3))
    assert "missing" not in sample_run(run, settings.replace(part="2/3")).words
    sample_run(run, settings.replace(out=str(tmp_path / "whole")))
    parts, whole = (np.load(tmp_path / name / "samples.npz") for name in ("parts", "whole"))
    assert np.abs(parts["arr_0"].astype(int) - whole["arr_0"]).max() <= 1
    assert np.array_equal(parts["labels"], whole["labels"])


@pytest.mark.parametrize("form", ["png", "shards"])
def test_other_formats_hold_the_same_images(run: Path, tmp_path: Path, form: str) -> None:
    """An image is what it is in whatever file."""
    settings = SampleSettings(num=4, progress=False, out=str(tmp_path / "npz")).replace(**{"sampler.steps": 1})
    expected = np.load(sample_run(run, settings).folder / "samples.npz")["arr_0"]
    folder = sample_run(run, settings.replace(format=form, out=str(tmp_path / form))).folder / form
    if form == "png":
        found = np.stack([np.asarray(Image.open(folder / f"{number:06d}.png"))[..., None] for number in range(4)])
    else:
        found = np.load(folder / "0000000-0000003.npy")
    assert np.array_equal(found, expected)
    assert np.load(folder / "labels.npy").tolist() == [0, 1, 2, 3]


def test_labels_are_chosen(run: Path) -> None:
    """Balanced by number, random by seed and number, so many of each, or some of each of ten."""
    assert chosen_labels(SampleSettings(num=5, classes=(7, 3)), 10).tolist() == [7, 3, 7, 3, 7]
    assert chosen_labels(SampleSettings(num=12), 10).tolist() == [*range(10), 0, 1]
    drawn = chosen_labels(SampleSettings(num=50, classes=(7, 3), labels="random"), 10)
    assert set(drawn.tolist()) == {3, 7}
    assert torch.equal(drawn[:9], chosen_labels(SampleSettings(num=9, classes=(7, 3), labels="random"), 10))
    assert chosen_labels(SampleSettings(classes=(7, 3), per_class=2), 10).tolist() == [7, 7, 3, 3]
    assert len(chosen_labels(SampleSettings(), 1000)) == 100


def test_presets_are_the_guides_corrected(run: Path) -> None:
    """The paper's protocol is the SDE with 250 steps whose last is the mean; nothing guides with 4 or 6."""
    chosen = {name: sample_settings(run, {}, name) for name in PRESETS}
    paper = chosen["paper"]
    assert paper.sampler == EulerMaruyama(steps=250, last="mean") and paper.guidance == UNGUIDED
    assert paper.num == 50_000 and paper.labels == "balanced"
    assert chosen["paper-guided"] == paper.replace(guidance=Guidance(scale=2.0, high=0.85))
    assert isinstance(chosen["quality"].sampler, Heun) and chosen["quality"].sampler.evaluations == 499
    assert chosen["preview"].num == 64 and chosen["preview"].guidance == Guidance(scale=2.0)
    assert all(settings.guidance.scale <= 2.5 for settings in chosen.values())
    changed = sample_settings(run, {"per-class": "3", "sampler.steps": "2"}, "paper")
    assert changed.num is None and changed.per_class == 3 and changed.sampler == EulerMaruyama(steps=2)
    with refused(UserError, "'papr'", "preview, quality, paper", "did you mean 'paper'"):
        sample_settings(run, {}, "papr")


def test_published_guidance_is_that_of_the_recipe(tmp_path: Path) -> None:
    """For a published recipe the guided preset is the published scale and interval; without a null class, refused."""
    from repae.recipes.catalogue import find

    recipe = find("repae-sdvae-xl2")
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert sample_settings(tmp_path, {}, "paper-guided").guidance == Guidance(scale=2.2, low=0.0, high=0.65)
    (tmp_path / "recipe.yaml").write_text(recipe.replace(**{"backbone.class_dropout_prob": 0.0}).to_yaml())
    assert sample_settings(tmp_path, {}, "quality").guidance == UNGUIDED
    with refused(UserError, "'paper-guided'", "null class", "use 'paper'"):
        sample_settings(tmp_path, {}, "paper-guided")


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"num": 4, "per-class": 2}, ["num is 4", "per_class is 2"]),
        ({"labels": "random"}, ["labels", "random", "per_class", "give num"]),
        ({"classes": "3,3"}, ["classes", "3, 3", "once"]),
        ({"num": 4, "classes": "3,11"}, ["classes", 11, "0 to 9"]),
        ({"part": "3/2"}, ["part", "'3/2'", "K/N", "from 1 to N"]),
        ({"part": "0/2"}, ["part", "'0/2'", "K/N", "from 1 to N"]),
        ({"step": 9}, ["step 9", "1, 2, 3"]),
        ({"format": "jpg"}, ["format", "'jpg'", "'npz', 'png', 'shards'"]),
        ({"precision": "fp8"}, ["precision", "'fp8'", "bf16"]),
        ({"device": "cuda:9"}, ["device", "'cuda:9'", "cpu"]),
        ({"guidance.kind": "autoguidance"}, ["autoguidance", "guidance.step", "an earlier checkpoint", "guidance.run"]),
        ({"guidance.kind": "autoguidance", "guidance.run": "nowhere"}, ["nowhere", "no run", "`repae import FILE"]),
        ({"guidance.kind": "autoguidance", "guidance.step": 9}, ["step 9", "1, 2, 3"]),
        ({"guidance.kind": "autoguidence"}, ["'autoguidence'", "did you mean 'autoguidance'"]),
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_refused(
    run: Path, options: dict[str, Any], facts: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, before anything is written."""
    there = sorted((run / "samples").iterdir())
    line = error_of(run, options, capsys)
    assert_tells(line, *facts)
    assert line.count("\n") == 1
    assert sorted((run / "samples").iterdir()) == there


def test_autoguidance_by_an_earlier_checkpoint(run: Path, tmp_path: Path) -> None:
    """Of the same run, or of another on the same autoencoder; one on other latents is refused."""
    settings = SampleSettings(num=4, out=str(tmp_path / "step"), progress=False).replace(**{"sampler.steps": 2})
    earlier = settings.replace(guidance=RunAutoguidance(scale=3, step=1))
    sample_run(run, settings.replace(out=str(tmp_path / "plain")))
    sample_run(run, earlier)
    plain, guided = (np.load(tmp_path / name / "samples.npz")["arr_0"].astype(int) for name in ("plain", "step"))
    assert np.abs(plain - guided).max() >= 1
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    shutil.rmtree(copy / "checkpoints" / "step-0000003")
    shutil.rmtree(copy / "checkpoints" / "step-0000002")
    other = settings.replace(guidance=RunAutoguidance(scale=3, run=str(copy)), out=str(tmp_path / "run"))
    sample_run(run, other)
    assert np.array_equal(np.load(tmp_path / "run" / "samples.npz")["arr_0"], guided)
    scratch = ["train", "digits-sit", *words({**TINY, "loop.steps": 1, "seed": 9}), "--name", "other"]
    assert main([*scratch, "--runs", str(tmp_path)]) == 0
    with refused(UserError, "guidance.run", tmp_path / "other", run, "guidance.step"):
        sample_run(run, other.replace(**{"guidance.run": str(tmp_path / "other"), "out": str(tmp_path / "no")}))


PAGE = (Path(__file__).parents[2] / "docs" / "sampling.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^(?:torchrun .*-m )?(repae sample .*)$", PAGE, flags=re.MULTILINE)


def test_the_page_shows_commands() -> None:
    """Else the next test would hold of nothing."""
    assert len(COMMANDS) >= 14 and all(name in PAGE and about in PAGE for name, about in PRESETS.items())


@pytest.mark.slow
@pytest.mark.parametrize("line", COMMANDS)
def test_the_documented_commands_work(
    run: Path, tmp_path: Path, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every one of them, on a tiny run with few images and steps."""
    here = Arguments.read(shlex.split(line)[2:], ())
    assert here.positional == ["runs/digits"]
    for name in ("digits", "small"):
        shutil.copytree(run, tmp_path / "runs" / name)
    options = here.options | {"progress": "false"}
    options |= {"num": "8"} if "50000" in line or "preset" in line else {}
    options |= {"guidance.step": "1"} if "guidance.step" in options else {}
    options |= {"per-class": "1"} if not {"num", "per-class"} & options.keys() else {}
    options |= {"sampler.steps": "2"} if options.get("sampler.kind") != "dopri5" else {}
    monkeypatch.chdir(tmp_path)
    assert main(["sample", "runs/digits", *words(options)]) == 0
    said = capsys.readouterr().out
    assert " images/s, " in said and said.splitlines()[-1].startswith("done: runs/digits/samples/step3-ema-")
    if "--part" not in line:
        assert Path(said.splitlines()[-1].removeprefix("done: "), "grid.png").is_file()
