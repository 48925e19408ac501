"""Every family of teachers against an implementation other than the one that is wrapped, from the authors' files."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import authors
import pytest
import timm
import torch
from authors import Published
from errors import refused
from torch import Tensor

from repae.config import UserError
from repae.models.teachers.catalogue import entry_of
from repae.models.teachers.timm import TimmTeacher, TimmTeacherConfig

FAMILIES: dict[str, tuple[Callable[[], Published], dict[str, Any]]] = {
    "dinov1-b": (authors.dinov1, {"img_size": 32}),
    "mae-l": (authors.mae, {"img_size": 32}),
    "ijepa-h": (authors.ijepa, {"img_size": 28}),
    "mocov3-b": (authors.mocov3, {"img_size": 32}),
    "dinov2-b": (authors.dinov2, {"img_size": 28}),
    "dinov2reg-l": (authors.dinov2reg, {"img_size": 28}),
    "dinov2-g": (authors.dinov2_giant, {"img_size": 28}),
    "dinov3-b": (authors.dinov3, {"img_size": 32}),
    "dinov3-hplus": (authors.dinov3_huge, {"img_size": 32}),
    "clip-l": (authors.clip, {"img_size": 28}),
    "siglip2-b": (authors.siglip2, {"img_size": 32, "global_pool": "avg", "fc_norm": False}),
    "pe-core-b": (authors.pe_core, {"img_size": 32, "global_pool": "avg", "use_fc_norm": False}),
    "pe-spatial-b": (authors.pe_spatial, {"img_size": 32}),
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], None]:
    """timm's models with fewer blocks and channels, everything else as it is."""
    create = timm.create_model

    def shrink(size: dict[str, Any]) -> None:
        def reduced(name: str, **options: Any) -> torch.nn.Module:
            return create(name, **(options | size))

        monkeypatch.setattr(timm, "create_model", reduced)

    return shrink


def loaded(name: str, file: Any, path: Path) -> TimmTeacher:
    """The teacher with the weights that its authors would publish as ``file``."""
    torch.save(file, path / "weights.pth")
    return TimmTeacher(TimmTeacherConfig(name=name, weights=str(path / "weights.pth"), grid=2))


def levels() -> Tensor:
    """Images on which a preprocessing is seen: other sizes, all three channels different."""
    return torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_are_those_of_another_implementation(name: str, small: Any, tmp_path: Path) -> None:
    """The authors' file, every weight of it at random, gives their patch tokens: loading, selection and final norm."""
    make, options = FAMILIES[name]
    published = make()
    small(published.size | options)
    made = loaded(name, published.file, tmp_path)
    assert made.final_norm == (name not in ("clip-l", "mae-l"))
    with torch.no_grad():
        expected = published.tokens(made.preprocess(levels()))
    assert expected.shape == (2, 4, authors.WIDTH) and expected.std() > 0.05
    torch.testing.assert_close(made(levels()), expected, rtol=1e-4, atol=1e-4)


def test_rotary_positions_count_patches_at_every_grid(small: Any, tmp_path: Path) -> None:
    """Perception Encoder on another grid: its authors resample the table and go on counting, timm would stretch."""
    published = authors.pe_spatial()
    small(published.size | {"img_size": 32})
    torch.save(published.file, tmp_path / "weights.pth")
    made = TimmTeacher(TimmTeacherConfig(name="pe-spatial-b", weights=str(tmp_path / "weights.pth"), grid=3))
    other = authors.scrambled(authors.PerceptionEncoder(post=False, grid=3))
    table = published.file["positional_embedding"]
    places = table[1:].T.unflatten(1, (2, 2))[None]
    places = torch.nn.functional.interpolate(places, (3, 3), mode="bicubic", antialias=True)[0].flatten(1).T
    other.load_state_dict(published.file | {"positional_embedding": torch.cat((table[:1], places))})
    with torch.no_grad():
        expected = other(made.preprocess(levels()))
    torch.testing.assert_close(made(levels()), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["clip-l", "mae-l"])
def test_the_final_norm_is_a_choice(name: str, small: Any, tmp_path: Path) -> None:
    """The reference takes CLIP's and MAE's tokens before it; a field says otherwise, and so does timm's own name."""
    make, options = FAMILIES[name]
    published = make()
    small(published.size | options)
    raw = loaded(name, published.file, tmp_path)
    config = TimmTeacherConfig(name=name, weights=str(tmp_path / "weights.pth"), grid=2, final_norm=True)
    normed, timms = TimmTeacher(config), TimmTeacher(config.replace(name=entry_of(name).model, final_norm=None))
    assert not torch.allclose(raw(levels()), normed(levels()), atol=0.1)
    with torch.no_grad():
        torch.testing.assert_close(normed.network.norm(raw(levels())), normed(levels()), rtol=1e-4, atol=1e-4)
    assert torch.equal(timms(levels()), normed(levels()))


def test_the_large_moco_file_counts_its_layers_on(small: Any, tmp_path: Path) -> None:
    """Blocks 13 and 14 of the published file call their layers norm13, fc13, norm14, fc14; nothing of them is lost."""
    published = authors.mocov3()
    small(authors.SIZE | {"img_size": 32, "depth": 15})
    plain = {}
    for key, value in published.file["state_dict"].items():
        for block in range(15):
            plain[key.replace("blocks.0.", f"blocks.{block}.")] = value + 0.01 * block
    counted = {
        key.replace("blocks.13.norm1.", "blocks.13.norm13.")
        .replace("blocks.13.mlp.fc1.", "blocks.13.mlp.fc13.")
        .replace("blocks.14.norm2.", "blocks.14.norm14.")
        .replace("blocks.14.mlp.fc2.", "blocks.14.mlp.fc14."): value
        for key, value in plain.items()
    }
    assert len(counted.keys() - plain.keys()) == 16  # eight of each encoder
    right = loaded("mocov3-l", {"state_dict": plain}, tmp_path)(levels())
    assert torch.equal(loaded("mocov3-l", {"state_dict": counted}, tmp_path)(levels()), right)


def test_what_training_scripts_keep_beside_is_left_out(small: Any, tmp_path: Path) -> None:
    """MAE with its decoder, DINO's full file with head and arguments: the encoder alone, and all of it."""
    published = authors.mae()
    small(authors.SIZE | {"img_size": 32})
    right = loaded("mae-l", published.file, tmp_path)(levels())
    decoder = {"mask_token": torch.ones(1, 1, 8), "decoder_embed.weight": torch.ones(8, authors.WIDTH)}
    full = {"model": published.file["model"] | decoder, "epoch": 800, "args": argparse.Namespace(lr=1e-3)}
    assert torch.equal(loaded("mae-l", full, tmp_path)(levels()), right)

    published = authors.dinov1()
    right = loaded("dinov1-b", published.file, tmp_path)(levels())
    teacher = {f"backbone.{key}": value for key, value in published.file.items()} | {"head.mlp.0.bias": torch.ones(3)}
    student = {f"module.{key}": torch.zeros_like(value) for key, value in teacher.items()}
    assert torch.equal(loaded("dinov1-b", {"student": student, "teacher": teacher}, tmp_path)(levels()), right)


@pytest.mark.parametrize("name", ["dinov1-b", "mae-l", "ijepa-h", "mocov3-b", "clip-l", "dinov3-b", "pe-core-b"])
def test_a_hole_in_the_authors_file_is_named(name: str, small: Any, tmp_path: Path) -> None:
    """One layer missing would be a random layer: the reference loads such files with strict=False."""
    make, options = FAMILIES[name]
    published = make()
    small(published.size | options)
    state = published.file
    while not any(isinstance(value, Tensor) for value in state.values()):
        state = state[next(key for key in ("state_dict", "model", "encoder") if key in state)]
    hole = next(key for key in state if in_block_one(key) and "momentum" not in key)
    del state[hole]
    with refused(UserError, "weights.pth", f"'{name}'", "missing blocks.1.attn.proj.weight"):
        loaded(name, published.file, tmp_path)


def in_block_one(key: str) -> bool:
    """A weight of the second block that stands for one of timm's."""
    return ".1." in key and key.endswith(("attn.proj.weight", "attn.out_proj.weight"))


@pytest.mark.parametrize(
    ("other", "facts"),
    [
        ("dinov2-b", ["patches", "16 pixels", "14"]),
        ("dinov2reg-l", ["patches", "16 pixels", "14"]),
        ("dinov1-b", ["blocks.0.attn.proj.bias", "(32,)", "(48,)"]),
        ("clip-l", ["patches", "16 pixels", "14"]),
        ("dinov3-b", ["missing blocks.0.gamma_1"]),
    ],
)
def test_another_model_s_file_is_refused(other: str, facts: list[str], small: Any, tmp_path: Path) -> None:
    """Registers for none, a class token for none, another patch, another width: never resampled into place."""
    published = authors.mocov3()
    make, options = FAMILIES[other]
    small(make().size | options)
    if other == "dinov1-b":  # the same architecture: only its size tells them apart
        small(authors.SIZE | {"img_size": 32, "embed_dim": 48})
    with refused(UserError, "weights.pth", f"'{other}'", *facts):
        loaded(other, published.file, tmp_path)
    small(authors.SIZE | {"img_size": 32, "patch_size": 8})
    with refused(UserError, "weights.pth", "'dinov1-b'", "patches", "16 pixels", 8):
        loaded("dinov1-b", published.file, tmp_path)
