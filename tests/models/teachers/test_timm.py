"""Teachers from timm: preprocessing and tokens as by hand, weights to the last key, refusals in words."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from errors import refused
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform
from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer, _create_vision_transformer
from torch import Tensor

from repae.config import UserError
from repae.models.teachers.timm import TimmTeacher, TimmTeacherConfig

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
FACTS = {"mean": MEAN, "std": STD, "classifier": "head", "first_conv": "patch_embed.proj", "num_classes": 7}
default_cfgs = generate_default_cfgs(
    {
        "repae_test_vit.bicubic": {**FACTS, "input_size": (3, 56, 56), "interpolation": "bicubic"},
        "repae_test_registers.bilinear": {**FACTS, "input_size": (3, 48, 48), "interpolation": "bilinear"},
        "repae_test_registers.lanczos": {**FACTS, "input_size": (3, 48, 48), "interpolation": "lanczos"},
    }
)


@register_model
def repae_test_vit(pretrained: bool = False, **options: object) -> VisionTransformer:
    """Patch 14, a class token, as DINOv2 and CLIP have."""
    sizes = {"img_size": 56, "patch_size": 14, "embed_dim": 24, "depth": 2, "num_heads": 2}
    return _create_vision_transformer("repae_test_vit", pretrained=pretrained, **(sizes | options))


@register_model
def repae_test_registers(pretrained: bool = False, **options: object) -> VisionTransformer:
    """Patch 16, a class token and four registers, whose places the position table leaves out."""
    sizes = {"img_size": 48, "patch_size": 16, "embed_dim": 16, "depth": 2, "num_heads": 2}
    registers = {"reg_tokens": 4, "no_embed_class": True, "init_values": 1.0}
    return _create_vision_transformer("repae_test_registers", pretrained=pretrained, **(sizes | registers | options))


VIT, REGISTERS = "repae_test_vit.bicubic", "repae_test_registers.bilinear"
PREFIX = {VIT: 1, REGISTERS: 5}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No hub, and an empty cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield


def images(count: int, channels: int = 3, side: int = 64) -> Tensor:
    """Smooth random images, as photographs are; noise alone would tell little of a resize."""
    coarse = torch.rand(count, channels, 8, 8)
    return (F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1) * 255).round().to(torch.uint8)


def saved(name: str, path: Path, **options: object) -> tuple[VisionTransformer, Path]:
    """A model with weights of its own and the file that holds them."""
    model = timm.create_model(name, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    if path.suffix == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    return model, path


def teacher(name: str, path: Path | None = None, grid: int | None = None) -> TimmTeacher:
    return TimmTeacher(TimmTeacherConfig(name=name, weights=path and str(path), grid=grid), load=path is not None)


@pytest.mark.parametrize("name", [VIT, REGISTERS])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_tokens_are_those_of_timm_by_hand(name: str, suffix: str, tmp_path: Path) -> None:
    """The patch tokens of timm's own forward_features at its native size, in order, class and registers dropped."""
    model, path = saved(name, tmp_path / f"weights{suffix}", num_classes=0)
    side = model.pretrained_cfg["input_size"][-1]
    made = teacher(name, path, grid=side // model.patch_embed.patch_size[0])
    batch = images(3, side=side)
    with torch.no_grad():
        pixels = (batch.float() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        features = model.forward_features(pixels)
    assert features.shape[1] - PREFIX[name] == made.tokens(side)
    torch.testing.assert_close(made(batch), features[:, PREFIX[name] :], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [VIT, REGISTERS])
def test_another_grid_is_a_resampled_position_table(name: str, tmp_path: Path) -> None:
    """One model serves any grid, with the tokens that timm gives when it is built for that size."""
    _, path = saved(name, tmp_path / "weights.safetensors", num_classes=0)
    made = teacher(name, path, grid=5)
    side = made.input_size(80)
    assert side == 5 * made.patch
    batch = images(2, side=side)
    native = timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay={"file": str(path)}, num_classes=0, img_size=side
    ).eval()
    with torch.no_grad():
        features = native.forward_features(made.preprocess(batch))
    torch.testing.assert_close(made(batch), features[:, PREFIX[name] :], rtol=1e-4, atol=1e-4)


def test_one_token_per_sixteen_pixels() -> None:
    """256 pixels become 224 for patch 14, 16 x 16 tokens as in the paper; a grid of one's own overrules it."""
    made = teacher(VIT)
    assert (made.tokens(256), made.input_size(256)) == (256, 224)
    assert (made.tokens(512), made.input_size(512)) == (1024, 448)
    assert made.preprocess(images(1, side=64)).shape == (1, 3, 56, 56)
    assert made(images(2, side=64)).shape == (2, 16, 24)
    eight = teacher(VIT, grid=8)
    assert (eight.tokens(256), eight.input_size(256)) == (64, 112)
    with refused(UserError, VIT, 250, "16 pixels", "grid"):
        made.tokens(250)


@pytest.mark.parametrize("name", [VIT, REGISTERS])
def test_preprocessing_is_timm_s_own(name: str) -> None:
    """Resize, range and normalisation agree with the transform that timm builds from the model's facts, in 8 bits."""
    made = teacher(name, grid=2)
    side = made.input_size(64)
    (image,) = images(1, side=64)
    facts = made.network.pretrained_cfg
    transform = create_transform(
        (3, side, side), interpolation=facts["interpolation"], mean=MEAN, std=STD, crop_pct=1.0
    )
    expected = transform(Image.fromarray(image.permute(1, 2, 0).numpy()))
    difference = (made.preprocess(image[None])[0] - expected).abs() * torch.tensor(STD).view(3, 1, 1) * 255
    # PIL rounds to whole levels after each of its two passes.
    assert float(difference.max()) <= 1.5
    assert float(difference.mean()) <= 0.5


def test_a_resize_never_leaves_the_range_of_levels() -> None:
    """Bicubic overshoots at a hard edge; the model must not see whiter than white."""
    made = teacher(VIT)
    edge = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    edge[..., 30:] = 255
    levels = made.preprocess(edge) * made.std + made.mean
    assert float(levels.min()) >= -1e-6
    assert float(levels.max()) <= 1 + 1e-6


def test_grey_is_three_equal_channels() -> None:
    """Digits meet a teacher of photographs as grey photographs."""
    made, grey = teacher(VIT), images(2, channels=1)
    torch.testing.assert_close(made(grey), made(grey.repeat(1, 3, 1, 1)))
    with refused(UserError, VIT, "2 x 64 x 64", "1 or 3 channels"):
        made(images(1, channels=2))


def test_it_is_frozen_and_silent(tmp_path: Path) -> None:
    """Eval mode for good, no gradients, float32 also under autocast, statistics and weights never move."""
    made = teacher(VIT).train()
    assert not any(module.training for module in made.modules())
    assert not any(parameter.requires_grad for parameter in made.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        tokens = made(images(1))
    assert tokens.dtype == torch.float32
    assert not tokens.requires_grad


def test_a_file_with_its_classifier_fits(tmp_path: Path) -> None:
    """A full checkpoint, head included, wrapped as training scripts wrap it, still covers the encoder exactly."""
    model, _ = saved(VIT, tmp_path / "plain.pth", num_classes=7)
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "wrapped.pth")
    made = teacher(VIT, tmp_path / "wrapped.pth")
    own = made.network.state_dict()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in own.items())
    assert not any(name.startswith("head") for name in own)


def test_every_key_must_be_there_and_known(tmp_path: Path) -> None:
    """A hole, a surplus and a wrong shape are named; a random layer in a teacher would go unnoticed for weeks."""
    model, path = saved(VIT, tmp_path / "weights.safetensors", num_classes=0)
    state = model.state_dict()
    for change, facts in [
        ({"blocks.1.mlp.fc1.weight": None}, ["missing blocks.1.mlp.fc1.weight"]),
        ({"blocks.2.norm1.weight": torch.ones(24)}, ["unexpected blocks.2.norm1.weight"]),
        ({"norm.weight": torch.ones(25)}, ["norm.weight", "(25,)", "(24,)"]),
    ]:
        changed = {name: value for name, value in (state | change).items() if value is not None}
        save_file(changed, path)
        with refused(UserError, path, VIT, *facts, "give the file"):
            teacher(VIT, path)
    with refused(UserError, "other.safetensors", REGISTERS, "missing blocks.0.ls1.gamma", "give the file"):
        teacher(REGISTERS, saved("test_vit", tmp_path / "other.safetensors")[1])


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    """Absent, damaged, pickled code (which is never run), and tensors without names."""
    with refused(UserError, tmp_path / "absent.pth", "put it there"):
        teacher(VIT, tmp_path / "absent.pth")
    for name, told in (("damaged.safetensors", "complete"), ("damaged.pth", "could run anything")):
        (tmp_path / name).write_bytes(b"not a file of weights")
        with refused(UserError, VIT, tmp_path / name, told):
            teacher(VIT, tmp_path / name)
    (tmp_path / "code.pth").write_bytes(pickle.dumps(np.random.default_rng))
    with refused(UserError, VIT, tmp_path / "code.pth", "could run anything", ".safetensors"):
        teacher(VIT, tmp_path / "code.pth")
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    with refused(UserError, VIT, tmp_path / "list.pth", "a list", "weights by name"):
        teacher(VIT, tmp_path / "list.pth")


@pytest.mark.usefixtures("offline")
def test_without_a_hub_it_says_what_to_do() -> None:
    """No connection and nothing in the cache: the model's name, and the way out, a local file."""
    with refused(UserError, "'test_vit.r160_in1k'", "hub", "weights=PATH"):
        TimmTeacher(TimmTeacherConfig(name="test_vit.r160_in1k"))


def test_weights_from_the_hub_are_complete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By name: strict loading with the model's own classifier, which is then taken off."""
    model, path = saved(VIT, tmp_path / "weights.safetensors")
    create = timm.create_model

    def from_cache(name: str, pretrained: bool = False, **options: object) -> torch.nn.Module:
        return create(name, pretrained=pretrained, pretrained_cfg_overlay={"file": str(path)}, **options)

    monkeypatch.setattr(timm, "create_model", from_cache)
    made = TimmTeacher(TimmTeacherConfig(name=VIT))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in made.network.state_dict().items())
    assert "head.weight" not in made.network.state_dict()
    state = model.state_dict()
    del state["blocks.0.attn.proj.bias"]
    save_file(state, path)
    with refused(UserError, VIT, "hub", "Missing key(s)", "blocks.0.attn.proj.bias", "weights=PATH") as caught:
        TimmTeacher(TimmTeacherConfig(name=VIT))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("repae_test_vitt", ["`repae teachers`", "did you mean 'repae_test_vit'"]),
        ("resnet18", ["grid of patch tokens", "'vit_base_patch14_dinov2.lvd142m'"]),
        ("test_convnext", ["grid of patch tokens", "'vit_base_patch14_dinov2.lvd142m'"]),
        ("repae_test_registers.lanczos", ["lanczos interpolation", "bicubic", "bilinear"]),
    ],
)
def test_what_is_no_teacher_is_refused(name: str, facts: list[str]) -> None:
    """Misspelt names get a suggestion; networks without a grid of tokens are told so before any download."""
    with refused(UserError, f"'{name}'", *facts):
        teacher(name)


def test_a_model_of_one_size_keeps_its_grid() -> None:
    """Relative positions cannot be resampled on the fly: the native grid by default, another when asked for."""
    native = teacher("test_vit_relpos")
    assert (native.tokens(256), native.input_size(256)) == (100, 160)
    other = teacher("test_vit_relpos", grid=4)
    assert (other.tokens(256), other.input_size(256)) == (16, 64)
    assert other(images(1, side=64)).shape == (1, 16, other.dim)


def test_sizes_are_known_without_weights() -> None:
    """A dry run asks for width and number of tokens on the meta device, where nothing is allocated or fetched."""
    with torch.device("meta"):
        made = TimmTeacher(TimmTeacherConfig(name="vit_base_patch14_dinov2.lvd142m"), load=False)
    assert (made.dim, made.tokens(256)) == (768, 256)
    assert all(parameter.is_meta for parameter in made.parameters())
