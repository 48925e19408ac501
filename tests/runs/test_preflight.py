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
from repae.runs.preflight import plan as planning
from repae.runs.preflight.memory import saved_bytes
from repae.runs.preflight.plan import DryRun, plan


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, an empty cache of the hub, and no GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return tmp_path


def parameters(found: DryRun) -> dict[str, int]:
    """Of each part."""
    return {part.name: part.parameters for part in found.parts}


@pytest.mark.parametrize("name", catalogue())
def test_every_recipe_can_be_built(name: str, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device, without weights, data, hub or GPU; what is missing is said with what to do about it."""
    monkeypatch.setattr(planning, "activations", lambda *arguments: 0.0)
    found = plan(find(name))
    text = str(found)
    assert found.parts and f"{found.parts[0].parameters:,}" in text
    if name.startswith("digits"):
        assert found.missing == () and "nothing: it can start" in text
        assert found.images.count == 1797 and found.epochs == pytest.approx(find(name).loop.steps * 64 / 1797)
    else:
        assert found.images.count is None and found.epochs is None
        for said in found.missing:
            assert said.replace(" ", "") in text.replace("\n", "").replace(" ", "")
        assert any("--data.path" in said for said in found.missing)
    if name.startswith("repa"):
        assert found.tokens == 256
        assert any("--teachers.0.weights" in said for said in found.missing)
        assert any("device 'cuda' is not available" in said for said in found.missing)
    if name.startswith(("repae", "repa", "sit")):
        weights = "--vae.path" if find(name).start.kind == "published" else "--start.path"
        assert any(weights in said for said in found.missing) == (name != "repae-sdvae-xl2-scratch")


def test_the_figures_of_the_published_run(alone: Path) -> None:
    """Parameter counts of the reference to the last one, and its memory as counted there, roughly."""
    found = plan(find("repae-sdvae-xl2"))
    counts = parameters(found)
    table = 256 * 1152  # the reference's fixed position table, a parameter there
    assert counts["denoiser"] + table == pytest.approx(683.24e6, abs=5e3)
    assert counts["vae"] == 83_653_863 and counts["discriminator"] == 2_765_633
    assert found.latent == (4, 32, 32)
    trained = counts["denoiser"] + counts["vae"] + counts["discriminator"]
    averaged = counts["denoiser"] + counts["vae"]
    teacher = counts["teacher dinov2-b"]
    assert found.state_bytes == 4 * (4 * trained + averaged + teacher)
    assert 1.5e9 < found.activations < 3e9
    assert "estimate" in str(found)
    assert parameters(plan(find("repae-vavae-xl1")))["vae"] == 69_836_067


def test_frozen_parts_cost_no_gradients(alone: Path) -> None:
    """A frozen autoencoder is weights and average only, and plain SiT needs no teacher."""
    joint, frozen = plan(find("digits")), plan(find("digits-sit"))
    assert [part.trained for part in frozen.parts if part.name == "vae"] == [False]
    assert not any(part.name.startswith("teacher") for part in frozen.parts)
    assert frozen.activations < joint.activations
    assert plan(find("digits-naive")).activations > joint.activations
    full = plan(find("digits-full"))
    assert full.activations > joint.activations and "discriminator" in parameters(full)


def test_data_at_hand_are_counted(alone: Path) -> None:
    """Classes, number of images and epochs come from the folder; a contradiction is refused."""
    for kind in ("cat", "dog", "owl"):
        (alone / "images" / kind).mkdir(parents=True)
        Image.new("RGB", (70, 80)).save(alone / "images" / kind / "1.png")
    recipe = find("folder").replace(**{"loop.steps": 3, "loop.batch_size": 2})
    found = plan(recipe)
    assert found.images.classes == 3 and found.epochs == 2.0 and "2.0 epochs" in str(found)
    assert found.missing == ()
    with refused(UserError, "num_classes is 4", "3 classes", "leave num_classes out", "data.path"):
        plan(recipe.replace(num_classes=4))


def test_given_files_are_looked_for_by_their_own_option(alone: Path) -> None:
    """A path that leads nowhere is named, one that leads somewhere is not."""
    recipe = find("repae-sdvae-l2").replace(
        **{"teachers.0.weights": "dino.pth", "perceptual.vgg": "vgg.pth", "perceptual.linear": "lpips.pth"}
    )
    said = " ".join(plan(recipe).missing)
    assert "no file dino.pth" in said and "vgg.pth" in said and "lpips.pth" in said and "sdvae-f8d4.pt" in said
    for name in ("dino.pth", "vgg.pth", "lpips.pth", "vae.pt"):
        (alone / name).touch()
    said = " ".join(plan(recipe.replace(**{"start.path": "vae.pt"})).missing)
    assert not any(name in said for name in ("dino.pth", "vgg.pth", "lpips.pth", "vae.pt"))


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
    """Before anything is trained or loaded."""
    with refused(UserError, *facts):
        plan(find("digits").replace(**changes))


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
