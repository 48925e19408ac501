"""From the reference's file to a folder that every command opens, and out again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference_files as files
import torch
from errors import assert_tells, refused
from PIL import Image

import repae
from repae.cli import main
from repae.commands.export import ExportSettings, export
from repae.commands.import_weights import ImportSettings, _teachers, import_file
from repae.config import UserError
from repae.flow import Euler
from repae.models import Denoiser, KLConfig, LatentNorm, SiT
from repae.runs.open import load, open_run
from repae.runs.start import check_start, start_denoiser
from repae.runs.weights import load_vae, read_autoencoder
from repae.runtime.checkpoint import CheckpointStore

TUNE = [
    "--losses.perceptual-weight=0",
    "--loop.steps=1",
    "--loop.batch-size=4",
    "--preview.sampler.steps=1",
    "--preview.classes=1",
    "--preview.per-class=1",
    "--track.tensorboard=false",
    "--track.progress=false",
    "--runtime.device=cpu",
    "--runtime.precision=fp32",
    *(f"--optimisers.{player}.lr=1e-9" for player in ("denoiser", "vae", "discriminator")),
]
"""One step so short that the weights stay where they began."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten classes of one image."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(10):
        (folder / f"class{number}").mkdir()
        pixels = np.random.default_rng(number).integers(0, 256, (40, 36, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"class{number}" / "a.png")
    return folder


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """The reference's joint checkpoint, imported."""
    folder = tmp_path_factory.mktemp("imported")
    file = files.write_joint(folder)
    assert main(["import", str(file), "--out", str(folder / "joint"), "--data", str(images)]) == 0
    return folder / "joint"


@pytest.fixture
def error_of(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def words(*argv: object) -> str:
        capsys.readouterr()
        assert main([str(word) for word in argv]) == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("WARNING")]
        assert errors[-1].startswith("error: ") and sum(line.startswith("error: ") for line in errors) == 1
        return errors[-1]

    return words


def test_what_was_imported_is_sampled_and_written_back(imported: Path, tmp_path: Path) -> None:
    """Averaged generator and live autoencoder, as the reference draws; and the file again, bit for bit."""
    run = open_run(imported)
    assert run.bundle.name == "reference" and run.step == 3 and run.recipe.method.kind == "repa-e"
    assert torch.equal(run.bundle.denoiser.backbone.pos_embed, files.weights("ema")["pos_embed"])
    assert torch.equal(run.bundle.latent_norm.running_var, files.weights("ema")["bn.running_var"])
    live = repae.load(imported, "live")
    assert torch.equal(live.bundle.latent_norm.running_var, files.weights("sit")["bn.running_var"])
    assert run.sample(torch.tensor([1, 2])).shape == (2, 3, 32, 32)
    with refused(UserError, imported, "'ema_vae'", "'ema'", "open its own, 'reference'"):
        open_run(imported, "ema")
    assert main(["sample", str(imported), "--per-class=1", "--sampler.steps=2", "--out", str(tmp_path / "s")]) == 0
    assert np.load(tmp_path / "s" / "samples.npz")["arr_0"].shape == (10, 32, 32, 3)
    assert main(["export", str(imported), "--format=reference", "--out", str(tmp_path / "back")]) == 0
    files.equal(files.joint(), torch.load(tmp_path / "back" / "0000003.pt", weights_only=False))
    assert json.loads((tmp_path / "back" / "args.json").read_text())["exp_name"] == "golden"


def test_teachers_keep_their_places_or_are_only_told_of(imported: Path, tmp_path: Path) -> None:
    """The reference's names become ours where every width is the published one; else the recipe only tells of them."""
    recipe = open_run(imported).recipe
    assert recipe.teachers == () and "teacher dinov2-vit-b,dinov1-vit-b" in recipe.about
    notes = (
        CheckpointStore(imported / "checkpoints").describe(imported / "checkpoints" / "step-0000003").meta["imported"]
    )
    assert any("aligned to dinov2-vit-b,dinov1-vit-b" in note for note in notes["notes"])
    for named, found in (
        ("dinov2-vit-b,jepa-vit-h", ["dinov2-b", "ijepa-h"]),
        ("jepa-vit-h,dinov2-vit-b", []),
        ("dinov2-vit-b", []),
        ("dinov2-vit-b,nobody-vit-h", []),
        ("", []),
        ("dinov2-vit-b,nobody-vit-h,jepa-vit-h", []),
    ):
        assert [teacher.name for teacher in _teachers(named, (768, 1280))] == found, named


def test_an_import_is_evaluated_on_the_images_that_it_was_given(imported: Path) -> None:
    """Its data are whatever `--data` named: nobody knows their fingerprint."""
    assert main(["evaluate", str(imported)]) == 0
    assert json.loads((imported / "evaluation.json").read_text())["psnr"] > 0


def test_an_exported_folder_opens_as_the_run_does(imported: Path, tmp_path: Path) -> None:
    """Same images, from Python and from the command line; the card and the recipe are in it; whole or not at all."""
    out = tmp_path / "deep" / "folder"
    assert main(["export", str(imported), "--out", str(out), "--license", "mit"]) == 0
    run, exported, labels = open_run(imported), open_run(out), torch.arange(4)
    assert exported.step == 3 and exported.recipe == run.recipe and exported.bundle.name == "reference"
    one, other = run.sample(labels, seed=5), exported.sample(labels, seed=5)
    assert (one.int() - other.int()).abs().max() <= 1 and one.float().std() > 5
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n") and "needs a generator trained on it" in card
    assert "SiTPipeline" not in card and "DiffusionPipeline.from_pretrained" in card and str(tmp_path) not in card
    assert sorted(path.name for path in out.parent.iterdir()) == ["folder"]
    with refused(UserError, out, "bundle 'reference'", "'live'", "open the run itself", "--bundle live"):
        open_run(out, "live")
    with refused(UserError, "bundle 'ema'", "ema_vae is missing", "leave --bundle out"):
        export(imported, ExportSettings(out=str(tmp_path / "again"), format="reference", bundle="ema"))
    with refused(UserError, out, "not empty", "another folder"):
        export(imported, ExportSettings(out=str(out)))
    with refused(UserError, out, "exported folder", out / "vae"):
        export(out, ExportSettings(out=str(tmp_path / "again"), part="vae"))
    assert not (tmp_path / "again").exists()


def test_the_autoencoder_alone(imported: Path, tmp_path: Path) -> None:
    """With its statistics, for a new recipe's `start`, from a run, an exported folder and the reference's own files."""
    assert main(["export", str(imported), "--part=vae", "--out", str(tmp_path / "vae")]) == 0
    reference = files.write_autoencoder(tmp_path / "reference")
    import_file(reference, ImportSettings(out=str(tmp_path / "imported")))
    export(imported, ExportSettings(out=str(tmp_path / "pipe")))
    want = read_autoencoder(imported)[0].state_dict()
    for place in ("vae", "pipe", "imported", "reference/vae.pt"):
        vae = KLConfig(base_channels=32, channel_multipliers=(1, 1, 1), blocks_per_level=1).build(3)
        load_vae(vae, tmp_path / place)
        assert all(torch.equal(value, want[name]) for name, value in vae.state_dict().items())
        _, norm = read_autoencoder(tmp_path / place)
        assert (norm is None) == place.endswith(".pt")
        if norm is not None:
            assert torch.allclose(norm.running_mean, files.weights("ema")["bn.running_mean"])
            std = (norm.running_var + norm.eps).sqrt()
            assert torch.allclose(std, (files.weights("ema")["bn.running_var"] + 1e-4).sqrt(), rtol=1e-5)
    with refused(UserError, tmp_path / "vae", "an autoencoder only", "no denoiser", "give a run"):
        open_run(tmp_path / "vae")
    with refused(UserError, tmp_path / "imported", "an autoencoder only", "no denoiser"):
        load(tmp_path / "imported")
    export(tmp_path / "imported", ExportSettings(out=str(tmp_path / "back"), format="reference"))
    for ending in ("", "-latents-stats", "-discriminator-ckpt"):
        one, other = (tmp_path / "reference" / f"vae{ending}.pt", tmp_path / "back" / f"imported{ending}.pt")
        files.equal(torch.load(one), torch.load(other))


def test_load_vae_takes_the_runs_own_bundle(imported: Path, tmp_path: Path) -> None:
    """What is sampled with is what is taken: the average where the recipe's bundle is "ema"."""
    source = CheckpointStore(imported / "checkpoints")
    newest = source.latest()
    assert newest is not None
    saved = source.describe(newest)
    average = {name: value + 1 for name, value in source.read(newest, "vae").items()}

    class Part:
        def __init__(self, state: dict[str, Any]) -> None:
            self.state_dict = lambda: state
            self.load_state_dict = lambda _state: None

    parts = {"vae": Part(source.read(newest, "vae")), "ema_vae": Part({"module": average, "count": 1})}
    for bundle, part in (("ema", average), ("live", source.read(newest, "vae"))):
        meta = {**saved.meta, "recipe": {**saved.meta["recipe"], "bundle": bundle}}
        CheckpointStore(tmp_path / bundle / "checkpoints").save(1, parts, meta)
        vae = read_autoencoder(tmp_path / bundle)[0]
        load_vae(vae, tmp_path / bundle)
        assert all(torch.equal(value, part[name]) for name, value in vae.state_dict().items())


def test_a_generator_needs_the_autoencoder_that_it_was_trained_on(imported: Path, tmp_path: Path) -> None:
    """REPA and SiT keep theirs elsewhere: it is asked for, checked for its channels, and never called certain."""
    ema = files.without_norm(files.weights("ema"))
    torch.save({"ema": ema, "args": files.args()}, tmp_path / "repa.pt")
    with refused(UserError, tmp_path / "repa.pt", "without its autoencoder", "--vae FOLDER or FILE"):
        import_file(tmp_path / "repa.pt", ImportSettings(out=str(tmp_path / "a")))
    out, notes = import_file(
        tmp_path / "repa.pt", ImportSettings(out=str(tmp_path / "b"), vae=str(files.write_autoencoder(tmp_path)))
    )
    assert any("nothing in the file can confirm it" in note for note in notes)
    run = open_run(out)
    assert run.recipe.method.kind == "repa" and run.sample(torch.tensor([0])).shape == (1, 3, 32, 32)
    norm: LatentNorm = run.bundle.latent_norm
    assert torch.allclose((norm.running_var + norm.eps).rsqrt(), torch.full((4,), 0.18215))
    with refused(UserError, "0000003.pt", "its own autoencoder", "leave --vae out"):
        import_file(files.write_joint(tmp_path), ImportSettings(out=str(tmp_path / "c"), vae=str(imported)))
    assert not (tmp_path / "a").exists() and not (tmp_path / "c").exists()


def test_training_starts_from_the_players_of_an_import(
    imported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Denoiser, autoencoder, discriminator and statistics begin where the imported ones are; so do the averages."""
    recipe = str(imported / "recipe.yaml")
    argv = ["train", recipe, "--init-from", str(imported), "--name=tuned", "--runs", str(tmp_path), *TUNE]
    teacher = "--teachers=[{kind: embedded, steps: 1, batch_size: 4}]"
    assert main([*argv, "--latent-norm.tracking=fixed", teacher]) == 0
    assert_tells(caplog.text, imported, "projectors", "other teachers", "random weights")
    store = CheckpointStore(tmp_path / "tuned" / "checkpoints")
    newest, source = store.latest(), CheckpointStore(imported / "checkpoints")
    first = source.latest()
    assert newest is not None and first is not None
    origin = {
        "denoiser": "ema_denoiser",
        "vae": "vae",
        "discriminator": "discriminator",
        "latent_norm": "ema_latent_norm",
    }
    for part, theirs in origin.items():
        want = source.read(first, theirs)
        want = want.get("module", want)
        for name, value in store.read(newest, part).items():
            moves = name.startswith("projectors.") or (part == "discriminator" and "running" in name)
            if value.is_floating_point() and not moves:
                assert torch.allclose(value, want[name], atol=1e-6), f"{part}: {name}"
    export(tmp_path / "tuned", ExportSettings(out=str(tmp_path / "reference"), format="reference"))
    back, _ = import_file(tmp_path / "reference" / "0000001.pt", ImportSettings(out=str(tmp_path / "back")))
    one, other = (
        open_run(place).sample(torch.tensor([4]), sampler=Euler(steps=2)) for place in (back, tmp_path / "tuned")
    )
    assert torch.equal(one, other)
    average = store.read(newest, "ema_vae")["module"]
    assert torch.allclose(average["model.decoder.conv_in.weight"], files.weights("vae")["decoder.conv_in.weight"])


def test_other_things_to_start_from(imported: Path, tmp_path: Path) -> None:
    """An exported folder gives generator and statistics; an imported autoencoder gives itself and its discriminator."""
    export(imported, ExportSettings(out=str(tmp_path / "pipe")))
    recipe = open_run(imported).recipe.replace(start={"kind": "run", "path": str(tmp_path / "pipe")})
    check_start(recipe)
    denoiser, norm = Denoiser(SiT(open_run(imported).bundle.denoiser.backbone.config), [7], 2, 16), LatentNorm(4)
    assert start_denoiser(recipe, denoiser, norm)
    assert torch.equal(denoiser.backbone.pos_embed, files.weights("ema")["pos_embed"])
    assert torch.allclose(norm.running_var, files.weights("ema")["bn.running_var"], rtol=1e-5)
    file = files.write_autoencoder(tmp_path)
    vae, _ = import_file(file, ImportSettings(out=str(tmp_path / "vae"), data=str(imported.parent / "none")))
    argv = ["train", str(vae / "recipe.yaml"), "--init-from", str(vae), "--name=alone", "--runs", str(tmp_path), *TUNE]
    data = open_run(imported).recipe.data.model_dump()["path"]
    assert main([*argv, "--data.path", data, "--data.resolution=32"]) == 0
    store = CheckpointStore(tmp_path / "alone" / "checkpoints")
    newest = store.latest()
    assert newest is not None
    discriminator = store.read(newest, "discriminator")
    assert torch.allclose(discriminator["main.0.weight"], files.weights("discriminator")["main.0.weight"], atol=1e-6)


def test_a_start_that_does_not_fit_is_refused_before_anything(
    imported: Path, tmp_path: Path, error_of: Callable[..., str]
) -> None:
    """By the name of the field, the number of classes included; and a start that is given twice, or is not there."""
    recipe = imported / "recipe.yaml"
    base = ["train", recipe, "--name=x", "--runs", tmp_path, *TUNE]
    for argv, facts in (
        ([*base, "--init-from", imported, "--backbone.depth=4"], ["backbone.depth", 4, "3 there"]),
        ([*base, "--init-from", imported, "--path.kind=cosine"], ["path.kind", "'cosine'", "'linear'"]),
        ([*base, "--init-from", tmp_path / "none"], [tmp_path / "none", "no run"]),
        ([*base, "--init-from", imported, "--start.kind=scratch"], ["--init-from", "--start", "give one"]),
        (["train", "digits", "--init-from", imported], ["vae.kind", "'tiny'", "'kl'"]),
    ):
        assert_tells(error_of(*argv), *facts)
    assert not (tmp_path / "x").exists()
    fewer = tmp_path / "fewer"
    for number in range(2):
        (fewer / str(number)).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(fewer / str(number) / "a.png")
    words = error_of(*base, "--init-from", imported, "--data.path", fewer, "--num-classes=none")
    assert_tells(words, "data.classes is 2 here", "10 there", "use the same sizes")


def test_the_commands_refuse_in_words(imported: Path, tmp_path: Path, error_of: Callable[..., str]) -> None:
    """What is missing, unknown, taken or impossible."""
    with refused(UserError, tmp_path, "recipe.yaml", "`repae import FILE --out FOLDER`"):
        open_run(tmp_path)
    file = imported.parent / "0000003.pt"
    out = ["--out", tmp_path / "a"]
    for argv, facts in (
        (["import", file], ["--out is missing"]),
        (["export", imported], ["--out is missing"]),
        (["import", file, "--out", imported], [imported, "not empty"]),
        (["import", "none.pt", *out], ["none.pt", "put it there"]),
        (["import", file, *out, "--num-head", 3], ["num_head", 3, "did you mean 'num_heads'"]),
        (["export", imported, *out, "--format", "onnx"], ["format", "'onnx'", "'diffusers', 'reference'"]),
        (["export", tmp_path, *out], [tmp_path, "no run", "recipe.yaml"]),
        (["push", imported], ["--to is missing"]),
        (["inspect", tmp_path], [tmp_path, "inspected", "a checkpoint"]),
        (["sample", file], [file, "no run", "recipe.yaml"]),
    ):
        assert_tells(error_of(*argv), *facts)
    assert not (tmp_path / "a").exists()
