"""Training on cached latents is training on the images, only faster; and what would not be is refused."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from encoders import CLASSES, CPU, RESOLUTION, VAE, Shades, autoencoder, data, encoder, pictures
from errors import assert_tells, refused
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from repae.cli import main
from repae.config import UserError
from repae.data import Dataset, Loader
from repae.data.latent_cache import CachedLatents
from repae.data.latent_dataset import LatentDataset
from repae.models.backbones import SiTBackbone
from repae.models.teachers.targets import GivenTargets, OnlineTargets, Targets
from repae.preparation.encode_latents import CacheSettings, cache_latents
from repae.preparation.statistics import latent_statistics
from repae.recipes.catalogue import find
from repae.recipes.recipe import Recipe
from repae.runs.cached_latents import RunLatents
from repae.runs.preflight.check import preflight
from repae.runtime.precision import Precision
from repae.runtime.seeds import Share
from repae.training.build import StepBuilder, build_players
from repae.training.methods import Repa
from repae.training.setup import TrainSetup

SETUP = TrainSetup(
    method=Repa(),
    vae=VAE,
    backbone=SiTBackbone(patch_size=2, hidden_size=16, depth=2, num_heads=2, encoder_depth=1, projector_dim=8),
    discriminator=None,
)
TINY = [
    "--loop.steps=3",
    "--loop.batch-size=8",
    "--backbone.hidden-size=16",
    "--backbone.depth=2",
    "--backbone.num-heads=2",
    "--backbone.encoder-depth=1",
    "--backbone.projector-dim=8",
    "--preview.sampler.steps=1",
    "--preview.classes=2",
    "--preview.per-class=1",
    "--track.tensorboard=false",
    "--track.progress=false",
    "--runtime.device=cpu",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and a cache of them in float32 with mirrored copies and tokens."""
    folder = tmp_path_factory.mktemp("home")
    dataset = data(pictures(folder / "images")).open()
    whole = CacheSettings(dtype="fp32", flipped=True, batch_size=4, per_shard=8)
    cache_latents(folder / "cache", dataset, encoder(), whole)
    return folder


def trained(
    dataset: Dataset, targets: Targets, statistics: Any, seed: int, batch_size: int
) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """The denoiser after three steps, and the latents that it saw."""
    setup = SETUP.replace(seed=seed)
    players = build_players(setup, resolution=RESOLUTION, image_channels=3, num_classes=CLASSES, targets=targets)
    assert players.denoiser is not None and players.latent_norm is not None
    players.vae = autoencoder()
    players.latent_norm.set_statistics(*statistics)
    step = setup.method.build(players, StepBuilder(setup, Precision("fp32", CPU), CPU))
    seen: list[torch.Tensor] = []
    players.latent_norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    for number, batch in zip(range(3), Loader(dataset, batch_size, seed=seed)):
        step(batch, number, Share(0, 1, 0, 1))
    return {name: value.clone() for name, value in players.denoiser.state_dict().items()}, seen


@settings(max_examples=6)
@given(seed=st.integers(0, 99), batch_size=st.sampled_from([2, 4, 8]), flip=st.booleans(), online=st.booleans())
def test_cached_latents_train_as_the_images_do(
    home: Path, seed: int, batch_size: int, flip: bool, online: bool
) -> None:
    """Bit for bit after three steps, mirrored or not, teacher tokens cached or online; z differs at each step."""
    dataset = data(home / "images", flip=flip).open()
    seeing = OnlineTargets([Shades()], RESOLUTION)
    run = RunLatents(CachedLatents(home / "cache"), () if online else (0,))
    known = run.teachers()
    targets = known.targets if known is not None else seeing
    assert isinstance(targets, OnlineTargets if online else GivenTargets)
    measured = latent_statistics(autoencoder(), dataset, Precision("fp32", CPU))
    expected, latents = trained(dataset, seeing, measured, seed, batch_size)
    reading = run.reading(dataset, targets)
    assert isinstance(reading, LatentDataset) and reading.pixels == online
    found, cached = trained(reading, targets, run.statistics(), seed, batch_size)
    assert found.keys() == expected.keys()
    assert all(found[name].equal(expected[name]) for name in expected)
    assert all(one.equal(other) for one, other in zip(latents, cached, strict=True))


def test_z_is_drawn_anew_at_each_step(home: Path) -> None:
    """The same images again are other latents, as far apart as the posterior says."""
    dataset = data(home / "images").open()
    run = RunLatents(CachedLatents(home / "cache"), (0,))
    known = run.teachers()
    assert known is not None
    _, seen = trained(run.reading(dataset, known.targets), known.targets, run.statistics(), 0, len(dataset))
    mean, std = run.store.moments(torch.arange(len(dataset)))
    batches = [batch.indices for _, batch in zip(range(3), Loader(dataset, len(dataset), seed=0))]
    standard = [(z - mean[index]) / std[index] for z, index in zip(seen, batches)]
    assert not any(one.allclose(other) for one, other in itertools.pairwise(standard))
    pooled = torch.cat(standard)
    assert abs(float(pooled.mean())) < 0.1 and abs(float(pooled.std()) - 1) < 0.1


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VAE trained on the digits for three steps, and a cache of its latents with an embedded teacher's tokens."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(["train", "digits-vae", *TINY, "--name", "vae", "--runs", str(folder)]) == 0
    words = ["cache", str(folder / "vae"), "--out", str(folder / "latents"), "--runs", str(folder), "--dtype", "fp32"]
    teacher = ["--teachers", "[{kind: embedded, steps: 2}]", "--runtime.device", "cpu"]
    assert main([*words, *teacher]) == 0
    return folder


def second(runs: Path, name: str, *more: str, recipe: str = "digits-repa") -> list[str]:
    """Words that train a second stage on them."""
    start = ["--start.kind", "weights", "--start.path", str(runs / "vae")]
    teacher = [] if recipe == "digits-sit" else ["--teachers.0.steps", "2"]
    return ["train", recipe, *TINY, *teacher, *start, "--name", name, "--runs", str(runs), *more]


def weights(runs: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(runs / name / "checkpoints" / "step-0000003" / "ema_denoiser.safetensors")


@pytest.mark.slow
def test_whole_runs_are_the_same_too(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the command line: the same weights and metrics as from images, without a teacher or an image being read."""
    assert main(second(runs, "from-images")) == 0
    monkeypatch.setattr("repae.commands.train.trained_teachers", lambda *arguments: pytest.fail("a teacher was loaded"))
    assert main(second(runs, "from-latents", "--latents.path", str(runs / "latents"))) == 0
    ours, theirs = weights(runs, "from-latents"), weights(runs, "from-images")
    assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in theirs)
    logs = [
        [{key: value for key, value in json.loads(line).items() if key != "wall"} for line in text.splitlines()]
        for text in ((runs / name / "metrics.jsonl").read_text() for name in ("from-images", "from-latents"))
    ]
    assert logs[0] == logs[1]
    state = json.loads((runs / "from-latents" / "checkpoints" / "step-0000003" / "state.json").read_text())
    facts = state["meta"]["latents"]
    about = CachedLatents(runs / "latents").about
    assert facts["vae"] == about.vae and facts["teachers"] == {"embedded": about.teachers[0].weights}
    assert (runs / "from-latents" / "report.html").is_file()


@pytest.mark.slow
def test_an_interrupted_run_on_latents_goes_on_exactly(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after its second step and started again: the same weights as in one go."""
    from repae.training.loop import Loop

    latents = ["--latents.path", str(runs / "latents"), "--loop.checkpoint-every", "2"]
    assert main(second(runs, "whole", *latents, recipe="digits-sit")) == 0
    original: Callable[..., None] = Loop._train

    def dying(self: Loop, batches: Any, done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt
        original(self, batches, done)

    monkeypatch.setattr(Loop, "_train", dying)
    assert main(second(runs, "halved", *latents, recipe="digits-sit")) == 130
    monkeypatch.undo()
    assert main(second(runs, "halved", *latents, recipe="digits-sit")) == 0
    ours, theirs = weights(runs, "halved"), weights(runs, "whole")
    assert all(ours[name].equal(theirs[name]) for name in theirs)


@pytest.mark.slow
def test_other_weights_are_refused(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the autoencoder, before the first step; of a teacher whose folder the recipe names; methods that train it."""
    latents = ["--latents.path", str(runs / "latents")]
    other = shutil.copytree(runs / "vae", tmp_path / "vae")
    assert main(["train", "digits-vae", *TINY, "--seed", "1", "--name", "vae1", "--runs", str(tmp_path)]) == 0
    words = second(runs, "other", *latents)
    words[words.index(str(runs / "vae"))] = str(tmp_path / "vae1")
    capsys.readouterr()
    assert main(words) == 2
    error = capsys.readouterr().err
    assert_tells(error, runs / "latents", "another autoencoder", "digest", "`repae cache")
    assert "Traceback" not in error
    words[words.index(str(tmp_path / "vae1"))] = str(other)
    assert main(words) == 0  # the same weights elsewhere, in the folder that the refused run had begun
    for recipe in ("digits", "digits-naive", "digits-vae"):
        with refused(UserError, "latents.path", "trains the autoencoder"):
            find(recipe).replace(**{"latents.path": "latents"})
    (saved,) = (runs / "cache").glob("teacher-*/teacher")
    capsys.readouterr()
    assert main(second(runs, "named", *latents, "--teachers.0.folder", str(saved))) == 0
    from repae.models.teachers.embedded import EmbeddedTeacher

    teacher = EmbeddedTeacher.load(saved)
    teacher.centre += 1
    teacher.save(tmp_path / "teacher")
    assert main(second(runs, "foreign", *latents, "--teachers.0.folder", str(tmp_path / "teacher"))) == 2
    assert_tells(capsys.readouterr().err, runs / "latents", "another teacher", "embedded", "`repae cache")


@pytest.mark.slow
def test_a_teacher_that_is_not_cached_sees_the_images(runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Said in a warning; the latents still come from the cache."""
    words = second(runs, "online", "--latents.path", str(runs / "latents"))
    words[words.index("--teachers.0.steps") + 1] = "3"
    assert main(words) == 0
    assert_tells(caplog.text, runs / "latents", "embedded", "images are read")


def test_a_dry_run_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Path) -> None:
    """The command that makes the latents; and latents of other images are refused there already."""
    monkeypatch.chdir(tmp_path)
    (gone,) = preflight(find("digits-sit").replace(**{"latents.path": "nowhere"})).problems
    assert gone.blocks
    assert_tells(gone.text, "`repae cache VAE --data DATA --out nowhere`")
    other = find("digits-sit").replace(**{"latents.path": str(runs / "latents"), "data.resolution": 64})
    with refused(UserError, runs / "latents", "resolution was 32", 64, "`repae cache VAE --data DATA --out FOLDER`"):
        preflight(other).images()


def test_the_published_second_stage() -> None:
    """The reference's train_ldm_only run: f16d32, SiT-XL/1, 800 epochs, cached latents, its own guidance."""
    recipe = find("repa-e2e-vavae-xl1")
    first = find("repae-vavae-xl1")
    assert isinstance(recipe, Recipe) and recipe.method == Repa(proj_coeff=0.5) and recipe.latents is not None
    assert (recipe.vae, recipe.backbone, recipe.teachers) == (first.vae, first.backbone, first.teachers)
    assert (recipe.loop.steps, recipe.loop.batch_size) == (4_000_000, 256)
    guidance = recipe.evaluation.guidance
    assert (guidance.scale, guidance.low, guidance.high) == (2.4, 0.0, 0.73)
    assert "1.69" in recipe.target and "1.12" in recipe.target


def test_the_references_files_train(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made here in its layout: two steps; and refused for an autoencoder that did not make them."""
    import h5py
    import numpy as np
    from safetensors.torch import save_file

    dataset = data(home / "images").open()
    save_file(autoencoder().state_dict(), tmp_path / "vae.safetensors")
    save_file(autoencoder(1).state_dict(), tmp_path / "other.safetensors")
    found = encoder(teachers=False)(dataset.batch(torch.arange(len(dataset))).images)
    both = torch.cat([found["mean"], found["std"]], 1).half().numpy()
    names = [dataset.name(index).replace("img", "img-mean-std-").replace(".png", ".npy") for index in range(len(both))]
    labels = json.dumps({"labels": list(zip(names, dataset.labels.tolist()))})
    with h5py.File(tmp_path / "tiny.h5", "w") as file:
        for name, entry in zip(names, both):
            file.create_dataset(name, data=entry)
        file.create_dataset("dataset.json", data=np.array(labels.encode(), dtype="S"))
    (tmp_path / "tiny_h5.json").write_text(json.dumps([*names, "dataset.json"]))
    words = ["train", "digits-sit", *TINY, "--loop.steps=2", "--backbone.patch-size", "2", "--runs", str(tmp_path)]
    words.remove("--loop.steps=3")
    words += ["--data.kind", "folder", "--data.path", str(home / "images"), "--data.resolution", str(RESOLUTION)]
    words += ["--vae.base-channels", "8", "--vae.latent-channels", "2", "--start.kind", "weights"]
    words += ["--latents.path", str(tmp_path / "tiny.h5"), "--evaluation.images", "4"]
    assert main([*words, "--start.path", str(tmp_path / "vae.safetensors"), "--name", "right"]) == 0
    assert (tmp_path / "right" / "checkpoints" / "step-0000002").is_dir()
    capsys.readouterr()
    assert main([*words, "--start.path", str(tmp_path / "other.safetensors"), "--name", "wrong"]) == 2
    assert_tells(
        capsys.readouterr().err, tmp_path / "tiny.h5", "this autoencoder's latents", "set start.path", "`repae cache`"
    )
    stats = ["stats", str(tmp_path / "tiny.h5"), "--data", str(home / "images"), "--resolution", str(RESOLUTION)]
    assert main(stats) == 0 and (tmp_path / "tiny-latents-stats.safetensors").is_file()


def test_statistics_are_printed_and_written(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a run and of its cache the same; in the reference's form scale = 1/std and bias = mean, `[1, C, 1, 1]`."""
    for source, name in (("vae", "one"), ("latents", "two")):
        words = ["stats", str(runs / source), "--out", str(tmp_path / name), "--runtime.device", "cpu"]
        assert main(words) == 0
    out = capsys.readouterr().out
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert one == two and one["images"] == 1797 and f"{one['mean'][0]:.6g}" in out
    tensors = load_file(tmp_path / "one.safetensors")
    assert tensors["mean"].dtype == torch.float64 and tensors["std"].tolist() == one["std"]
    assert main(["stats", str(runs / "vae"), "--format", "reference", "--out", str(tmp_path / "ref")]) == 0
    state = torch.load(tmp_path / "ref.pt", weights_only=True)
    assert state["latents_scale"].shape == state["latents_bias"].shape == (1, 4, 1, 1)
    latent = torch.tensor(one["mean"]).view(1, 4, 1, 1) + torch.tensor(one["std"]).view(1, 4, 1, 1)
    torch.testing.assert_close((latent - state["latents_bias"]) * state["latents_scale"], torch.ones(1, 4, 1, 1))


@pytest.mark.parametrize(
    ("argv", "facts"),
    [
        (["cache"], ["the autoencoder", "missing"]),
        (["cache", "nowhere"], ["--out is missing"]),
        (["cache", "nowhere", "--out", "x"], ["nowhere", "no autoencoder"]),
        (["cache", "{runs}/vae", "--out", "x", "--dtype", "fp8"], ["dtype", "'fp8'", "'bf16', 'fp16', 'fp32'"]),
        (["cache", "{runs}/vae", "--out", "x", "--data", "nowhere"], ["'nowhere'", "correct the path"]),
        (["cache", "{runs}/vae", "--out", "x", "--resolution", "30"], ["resolution", 30, "multiple of 4"]),
        (["cache", "{runs}/vae", "--out", "{runs}/vae"], ["vae", "not empty", "--out"]),
        (["cache", "{runs}/vae", "--out", "x", "--flop"], ["flop", "dtype, flipped"]),
        (["stats"], ["the autoencoder", "missing"]),
        (["stats", "{runs}/vae", "--format", "npz"], ["format", "'npz'", "'repae', 'reference'"]),
        (["stats", "nowhere"], ["nowhere", "no autoencoder"]),
    ],
)  # fmt: skip
def test_wrong_words_are_refused(
    argv: list[str], facts: list[object], runs: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """In one line, with status 2."""
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main([word.format(runs=runs) for word in argv]) == 2
    error = capsys.readouterr().err
    assert_tells(error, *facts)
    assert error.count("\n") == 1


PAGE = (Path(__file__).parents[2] / "docs" / "latents.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_documented_commands_do_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every one of the page's first block, in order, only shortened."""
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^repae (.*)$", PAGE, flags=re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["train", "cache", "stats", "train"]
    for line in lines:
        words = shlex.split(line)
        if words[0] == "train":
            words += TINY if "digits-vae" in words else [*TINY, "--teachers.0.steps=1"]
        if words[0] == "cache":
            words[words.index("--teachers") + 1] = "[{kind: embedded, steps: 1}]"
        assert main(words) == 0
    assert (tmp_path / "runs" / "frozen" / "report.html").is_file()
