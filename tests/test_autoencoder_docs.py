"""docs/autoencoders.md tells the truth: its names exist, its commands compose, its snippet runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from repae.config import fields
from repae.data import FolderConfig
from repae.models.autoencoders.families import FAMILIES
from repae.recipes.catalogue import catalogue, compose
from repae.recipes.recipe import Recipe

TEXT = (Path(__file__).parents[1] / "docs" / "autoencoders.md").read_text(encoding="utf-8")
COMMANDS = [line.split("#")[0].split() for line in TEXT.splitlines() if line.startswith("    repae train")]


def test_there_are_commands() -> None:
    """The pattern finds them."""
    assert len(COMMANDS) == 8


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_commands_compose(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a recipe with options that it takes."""
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "cat" / "1.png")
    monkeypatch.chdir(tmp_path)
    _, _, name, *options = words
    changes = {option.removeprefix("--"): value for option, value in zip(options[::2], options[1::2])}
    recipe = compose(name, changes)
    if "data" in changes:
        assert recipe.data == FolderConfig(path="photos", resolution=recipe.data.resolution)
        assert recipe.method.kind == ("repa-e" if name == "folder" else "vae")
    else:
        assert recipe.vae.kind == "diffusers" and recipe.vae.path in ("FOLDER", "Qwen/Qwen-Image")


def test_the_options_and_names_exist() -> None:
    """Every option, field, recipe and class that the page names, and no class is left out."""
    known = set(fields(Recipe))
    named = re.findall(r"--([a-z]+\.[a-z_-]+)", TEXT)
    named += re.findall(r"`((?:perceptual|losses|latent_norm|start|vae|method)\.[a-z_]+)", TEXT)
    assert len(named) > 20
    for name in named:
        assert name.replace("-", "_") in known, name
    for name in re.findall(r"`((?:repae|repa|digits)-[a-z0-9-]+)`", TEXT):
        assert name in catalogue(), name
    assert set(FAMILIES) == set(re.findall(r"^\| `((?:Autoencoder|VQ)\w+)` \|", TEXT, flags=re.MULTILINE))


def test_the_snippet_runs() -> None:
    """With any images."""
    (snippet,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    names = {"images": torch.rand(1, 3, 16, 16) * 2 - 1}
    exec(snippet, names)
    assert names["mean"].shape == (1, 4, 16, 16)
