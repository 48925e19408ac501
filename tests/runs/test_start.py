"""What a run starts from: a published autoencoder, LPIPS, a discriminator from a file; all of it in a real run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from errors import assert_tells, refused
from torch import Tensor, nn

import repae
from repae.config import UserError
from repae.models import PatchGAN, PatchGANConfig
from repae.models.autoencoders import DiffusersConfig
from repae.models.perceptual import LpipsNetwork
from repae.models.teachers.base import Teacher
from repae.models.teachers.embedded import EmbeddedTeacher, EmbeddedTeacherConfig
from repae.recipes.catalogue import find
from repae.recipes.recipe import FromPublished, LpipsPerceptual, Recipe, TeacherPerceptual
from repae.runs.discriminator import discriminator_weights
from repae.runs.perceptual import perceptual_files, pretrained_distance, teacher_distance
from repae.runs.preflight.check import preflight
from repae.runtime.checkpoint import CheckpointStore

CPU = torch.device("cpu")
SHIFT, SCALE = 0.1159, 0.3611
GREY_FLUX: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": [8, 8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "norm_num_groups": 4,
    "latent_channels": 4,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "scaling_factor": SCALE,
    "shift_factor": SHIFT,
}
QUICK = {
    "loop.steps": 2,
    "loop.batch_size": 8,
    "loop.log_every": 1,
    "teachers.0.steps": 1,
    "teachers.0.batch_size": 16,
    "backbone.hidden_size": 32,
    "backbone.depth": 2,
    "backbone.num_heads": 2,
    "backbone.projector_dim": 16,
    "backbone.encoder_depth": 1,
    "discriminator.ndf": 8,
    "discriminator.n_layers": 2,
    "preview.per_class": 1,
    "preview.sampler.steps": 2,
    "runtime.device": "cpu",
    "runtime.threads": 1,
    "track.progress": False,
    "track.tensorboard": False,
}


def patchgan(seed: int = 4, **sizes: Any) -> PatchGAN:
    torch.manual_seed(seed)
    return PatchGAN(PatchGANConfig(in_channels=1, ndf=8, n_layers=2, **sizes))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of diffusers, VGG16 as torchvision names it, and a discriminator as the reference saves it."""
    folder = tmp_path_factory.mktemp("files")
    with torch.random.fork_rng():
        torch.manual_seed(6)
        DiffusersConfig(architecture=GREY_FLUX).build(1).model.save_pretrained(folder / "flux" / "vae")
        vgg = LpipsNetwork(load=False)
        torch.save({f"features.{name}": tensor for name, tensor in vgg.layers.state_dict().items()}, folder / "vgg.pth")
        torch.save(patchgan().state_dict(), folder / "disc.pt")
    return folder


def recipe(files: Path) -> Recipe:
    """The digits' joint run with all of it."""
    return find("digits-full").replace(
        name="flux",
        vae=DiffusersConfig(path=str(files / "flux"), subfolder="vae"),
        start=FromPublished(),
        perceptual=LpipsPerceptual(vgg=str(files / "vgg.pth")),
        **QUICK,
        **{
            "latent_norm.statistics": "published",
            "latent_norm.tracking": "fixed",
            "discriminator.weights": str(files / "disc.pt"),
            "optimisers.discriminator.lr": 1e-12,
        },
    )


@pytest.fixture(scope="module")
def run(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run."""
    yield repae.train(recipe(files), tmp_path_factory.mktemp("runs"))


@pytest.mark.slow
def test_a_run_from_a_published_autoencoder(run: Path, files: Path, tmp_path: Path) -> None:
    """It trains, keeps the published statistics where they are fixed, and opens again when the folder is gone."""
    folder = shutil.copytree(files / "flux", tmp_path / "flux")
    kept = Recipe.from_yaml(run / "recipe.yaml")
    said = json.loads((folder / "vae" / "config.json").read_text())
    assert kept.vae.architecture.items() <= said.items() and kept.vae.architecture["shift_factor"] == SHIFT
    shutil.rmtree(files / "flux")
    try:
        opened = repae.load(run, "live")
        mean, std = opened.bundle.latent_norm.statistics()
        torch.testing.assert_close(mean, torch.full((4,), SHIFT))
        torch.testing.assert_close(std, torch.full((4,), 1 / SCALE))
        assert opened.sample(torch.tensor([0, 1])).shape == (2, 1, 32, 32)
    finally:
        shutil.copytree(folder, files / "flux")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row for row in rows if "perceptual_loss" in row]
    assert losses and all(row["perceptual_loss"] > 0 for row in losses)


@pytest.mark.slow
def test_a_discriminator_from_a_file_and_from_a_run(run: Path, files: Path) -> None:
    """The run's discriminator is the file's, moved by next to nothing; the next run may begin with that one."""
    store = CheckpointStore(run / "checkpoints")
    state = store.read(store.latest(), "discriminator")
    for name, value in torch.load(files / "disc.pt", weights_only=True).items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(state[name], value, rtol=0, atol=1e-8)
    found = discriminator_weights(recipe(files).replace(**{"discriminator.weights": str(run)}), 1)
    assert found is not None and all(torch.equal(found[name], value) for name, value in state.items())


def test_a_discriminator_that_does_not_fit(files: Path, tmp_path: Path) -> None:
    """Other sizes or channels, another norm, no file, no discriminator: refused before anything is trained."""
    base = recipe(files)
    assert discriminator_weights(base, 1) is not None
    assert discriminator_weights(base.replace(**{"discriminator.weights": None}), 1) is None
    torch.save(patchgan(norm="act").state_dict(), tmp_path / "act.pt")
    for changes, channels, facts in (
        ({"discriminator.ndf": 16}, 1, ["main.0.bias", "(8,)", "(16,)"]),
        ({}, 3, ["main.0.weight", "(8, 1, 4, 4)", "(8, 3, 4, 4)"]),
        ({"discriminator.weights": str(tmp_path / "act.pt")}, 1, ["act.pt", "missing main.3.running_mean"]),
        ({"discriminator.weights": "nothing.pt"}, 1, ["discriminator.weights", "nothing.pt", "put it there"]),
        ({"losses.discriminator_weight": 0}, 1, ["discriminator.weights", "losses.discriminator_weight"]),
        ({"discriminator.weights": str(files / "vgg.pth")}, 1, ["PatchGAN", "26 unknown"]),
    ):
        with refused(UserError, *facts) as caught:
            discriminator_weights(base.replace(**changes), channels)
        assert "\n" not in str(caught.value)


def test_what_is_missing_is_said_beforehand(files: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The dry run names each file by its own option, and nothing when all are there."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert preflight(recipe(files)).problems == ()
    changes = {
        "discriminator.weights": "nothing.pt",
        "perceptual.vgg": None,
        "perceptual.linear": "linear.pth",
        "vae.path": "someone/flux",
        "vae.architecture": GREY_FLUX,
    }
    said = " ".join(map(str, preflight(recipe(files).replace(**changes)).problems))
    assert_tells(said, "nothing.pt", "--discriminator.weights PATH", "vgg16.tv_in1k", "--perceptual.vgg FILE")
    assert_tells(said, "linear.pth", "someone/flux", "--vae.path FOLDER")


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"perceptual.kind": "none"}, ["perceptual.kind", "'none'", "losses.perceptual_weight", "set the weight to 0"]),
        ({"perceptual.kind": "teacher", "teachers": ()}, ["perceptual.kind", "teachers is empty", "add one"]),
        (
            {"perceptual.kind": "lpips", "perceptual.vgg": "nothing.pth"},
            ["--perceptual.vgg FILE", "no file nothing.pth"],
        ),
        (
            {"perceptual.kind": "lpips-convnext_s", "perceptual.convnext": "nothing.pth"},
            ["--perceptual.convnext FILE", "no file nothing.pth"],
        ),
    ],
)
def test_a_perceptual_term_that_nobody_can_compute(changes: dict[str, Any], facts: list[str]) -> None:
    """Refused first; where the term does not count, nothing is asked for."""
    base = find("digits-full").replace(**changes)
    with refused(UserError, *facts):
        preflight(base).images()
    for silent in (base.replace(**{"losses.perceptual_weight": 0}), base.replace(**{"method.kind": "repa"})):
        assert not any("nothing.pth" in str(problem) for problem in preflight(silent).problems)
        assert pretrained_distance(silent, CPU) is None and not list(perceptual_files(silent))


def test_lpips_of_a_recipe(files: Path) -> None:
    """The distance of a recipe is LPIPS of images as the step has them, grey ones included."""
    network = LpipsNetwork(files / "vgg.pth")
    distance = pretrained_distance(recipe(files), CPU)
    assert distance is not None
    real = torch.rand(2, 1, 32, 32) * 2 - 1
    ours = -real

    def maps(images: Tensor) -> list[Tensor]:
        return [nn.functional.normalize(layer, dim=1) for layer in network(images.expand(-1, 3, -1, -1))]

    pairs = zip(maps(ours), maps(real), network.linear)
    expected = sum(((a - b).square() * weights.view(-1, 1, 1)).sum(1).mean() for a, b, weights in pairs)
    torch.testing.assert_close(distance(ours, real), expected)


def test_the_first_teacher_compares(files: Path) -> None:
    """The distance in a teacher's features is that of the first one; one without feature maps says so."""

    class Blind(Teacher):
        name, dim = "blind", 1

        def tokens(self, resolution: int) -> int:
            return 1

        def forward(self, images: Tensor) -> Tensor:
            return images

    base = recipe(files).replace(perceptual=TeacherPerceptual())
    real = torch.rand(2, 1, 32, 32) * 2 - 1
    seeing = EmbeddedTeacher(EmbeddedTeacherConfig(widths=(8, 8, 16), heads=2))
    distance = teacher_distance(base, [seeing, Blind()])
    assert distance is not None and distance(-real, real) > 0 and distance(real, real) == 0
    blind = teacher_distance(base, [Blind(), seeing])
    assert blind is not None
    with refused(UserError, "teacher blind", "feature maps", "perceptual.kind 'lpips'"):
        blind(real, real)
    assert teacher_distance(recipe(files), [seeing]) is None


def test_published_weights_need_a_publisher() -> None:
    """A kind of autoencoder that nobody published has no weights to start from."""
    with refused(UserError, "start.kind is 'published'", "'tiny'", "vae.path", "'weights', 'warmup' or 'scratch'"):
        find("digits").replace(start=FromPublished())
    with refused(UserError, "start.kind is 'published'", "'diffusers'", "vae.path", "'weights', 'warmup' or 'scratch'"):
        find("digits-vq").replace(start=FromPublished())
