"""The dry run: every recipe can be built with no file at hand, and its figures are the published ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from errors import refused
from PIL import Image
from torch import nn

from repae.config import UserError
from repae.models.autoencoders import TinyConfig
from repae.recipes.catalogue import catalogue, find
from repae.recipes.recipe import Recipe
from repae.runs.preflight import rehearsal
from repae.runs.preflight.check import preflight
from repae.runs.preflight.dry_run import DryRun, dry_run
from repae.runs.preflight.memory import saved_bytes


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, an empty cache of the hub, and no GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return tmp_path


def parameters(found: DryRun) -> dict[str, int]:
    """Of each part."""
    assert found.figures is not None
    return {network.name: network.parameters for network in found.figures.networks}


def told(recipe: Recipe) -> str:
    """What the preflight says of a recipe."""
    return " ".join(map(str, preflight(recipe).problems))


@pytest.mark.parametrize("name", catalogue())
def test_every_recipe_can_be_built(name: str, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device, without weights, data, hub or GPU; what is missing is said with what to do about it."""
    monkeypatch.setattr(rehearsal, "activations", lambda *arguments: 0.0)
    found = dry_run(find(name))
    text = str(found)
    assert f"{next(iter(parameters(found).values())):,}" in text
    if name.startswith("digits"):
        assert found.problems == () and "nothing: it can start" in text
        assert found.data.count == 1797 and found.epochs == pytest.approx(find(name).loop.steps * 64 / 1797)
    else:
        assert found.data.count is None and found.epochs is None
        for problem in found.problems:
            assert str(problem).replace(" ", "") in text.replace("\n", "").replace(" ", "")
        assert any("--data" in problem.text and problem.blocks for problem in found.problems)
    if name.startswith("repa"):
        assert found.figures is not None and found.figures.tokens == 256
        assert any("--teachers.0.weights" in problem.text for problem in found.problems)
        assert any("device 'cuda' is not available" in problem.text for problem in found.problems)
    if name.startswith(("repae", "repa", "sit")):
        weights = "--vae.path" if find(name).start.kind == "published" else "--start.path"
        assert any(weights in problem.text for problem in found.problems) == (name != "repae-sdvae-xl2-scratch")


def test_the_figures_of_the_published_run(alone: Path) -> None:
    """Parameter counts of the reference to the last one, and its memory as counted there, roughly."""
    found = dry_run(find("repae-sdvae-xl2"))
    counts = parameters(found)
    table = 256 * 1152  # the reference's fixed position table, a parameter there
    assert counts["denoiser"] + table == pytest.approx(683.24e6, abs=5e3)
    assert counts["vae"] == 83_653_863 and counts["discriminator"] == 2_765_633
    assert found.figures is not None and found.figures.latent == (4, 32, 32)
    trained = counts["denoiser"] + counts["vae"] + counts["discriminator"]
    averaged = counts["denoiser"] + counts["vae"]
    teacher = counts["teacher dinov2-b"]
    assert found.figures.state_bytes == 4 * (4 * trained + averaged + teacher)
    assert 1.5e9 < found.figures.activations < 3e9
    assert "estimate" in str(found)
    assert parameters(dry_run(find("repae-vavae-xl1")))["vae"] == 69_836_067


def test_frozen_parts_cost_no_gradients(alone: Path) -> None:
    """A frozen autoencoder is weights and average only, and plain SiT needs no teacher."""
    names = ("digits", "digits-sit", "digits-naive", "digits-full")
    joint, frozen, naive, full = (dry_run(find(name)).figures for name in names)
    assert joint is not None and frozen is not None and naive is not None and full is not None
    assert [network.trained for network in frozen.networks if network.name == "vae"] == [False]
    assert not any(network.name.startswith("teacher") for network in frozen.networks)
    assert frozen.activations < joint.activations
    assert naive.activations > joint.activations
    assert full.activations > joint.activations
    assert "discriminator" in [network.name for network in full.networks]


def test_data_at_hand_are_counted(alone: Path) -> None:
    """Classes, number of images and epochs come from the folder; a contradiction is in the way."""
    for kind in ("cat", "dog", "owl"):
        (alone / "images" / kind).mkdir(parents=True)
        Image.new("RGB", (70, 80)).save(alone / "images" / kind / "1.png")
    recipe = find("folder").replace(**{"loop.steps": 3, "loop.batch_size": 2})
    found = dry_run(recipe)
    assert found.data.classes == 3 and found.epochs == 2.0 and "2.0 epochs" in str(found)
    assert found.problems == ()
    with refused(UserError, "num_classes is 4", "3 classes", "leave num_classes out", "data.path"):
        preflight(recipe.replace(num_classes=4)).images()


def test_given_files_are_looked_for_by_their_own_option(alone: Path) -> None:
    """A path that leads nowhere is named, one that leads somewhere is not."""
    recipe = find("repae-sdvae-l2").replace(
        **{"teachers.0.weights": "dino.pth", "perceptual.vgg": "vgg.pth", "perceptual.linear": "lpips.pth"}
    )
    said = told(recipe)
    assert "no file dino.pth" in said and "vgg.pth" in said and "lpips.pth" in said and "sdvae-f8d4.pt" in said
    for name in ("dino.pth", "vgg.pth", "lpips.pth", "vae.pt"):
        (alone / name).touch()
    said = told(recipe.replace(**{"start.path": "vae.pt"}))
    assert "there is no file" not in said and "there are no weights at vae.pt" not in said
    assert "vae.pt cannot be read as weights" in said and "dino.pth cannot be read as weights" in said


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"backbone.encoder_depth": 9}, ["encoder_depth 9", "1 to 4"]),
        ({"backbone.num_heads": 5}, ["num_heads 5", "hidden_size 96", "a divisor"]),
        ({"backbone.patch_size": 1}, ["teacher embedded", "16 (4 x 4)", "patch_size"]),
        ({"teachers": (), "data.resolution": 36}, ["resolution 36", "multiple of 8"]),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, object], facts: list[str]) -> None:
    """Before anything is trained or loaded; a dry run leaves out the figures that such networks do not have."""
    recipe = find("digits").replace(**changes)
    with refused(UserError, *facts):
        preflight(recipe).images()
    found = dry_run(recipe)
    assert found.figures is None and "memory" not in str(found)


def test_what_autograd_keeps_is_counted_once() -> None:
    """A linear layer keeps its input and not its weight; two that share an input keep it once."""
    first, second = nn.Linear(10, 20, device="meta"), nn.Linear(10, 20, device="meta")
    both = nn.ModuleList([first, second])
    x = torch.empty(7, 10, device="meta")
    assert saved_bytes(lambda: first(x), first) == 7 * 10 * 4
    assert saved_bytes(lambda: first(x) + second(x), both) == 7 * 10 * 4


def test_the_count_on_meta_is_the_count_on_a_device() -> None:
    """Nothing is saved on the meta device that is not saved on the CPU, and the other way round, within a tenth."""
    volumes = []
    for device in ("cpu", "meta"):
        with torch.device(device):
            vae = TinyConfig().build(1)
            images, noise = torch.zeros(1, 1, 32, 32), torch.zeros(1, 4, 8, 8)
            volumes.append(saved_bytes(lambda vae=vae, i=images, n=noise: vae(i, n).reconstruction, vae))
    assert volumes[1] == pytest.approx(volumes[0], rel=0.1)
