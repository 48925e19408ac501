"""docs/python.md tells the truth: its code runs from top to bottom, and its table is what is public."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from errors import refused

import repae

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def test_the_table_lists_what_is_public() -> None:
    """Protects the page from a function that came or went."""
    assert set(re.findall(r"^\| `repae\.(\w+)", TEXT, flags=re.MULTILINE)) == set(repae.__all__) - {"__version__"}


@pytest.mark.slow
def test_the_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects the page from code that nobody could run: trained, measured, compared, opened again and sampled."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL):
        exec(compile(block, "docs/python.md", "exec"), names)
    assert "Comparable: one protocol" in capsys.readouterr().out
    assert names["images"].shape == (10, 1, 32, 32)


def test_the_lines_of_the_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects what most people read first: the recipe is made for real, the run is not trained."""
    run = SimpleNamespace(sample=lambda labels, seed: (labels, seed))
    monkeypatch.setitem(vars(repae), "train", lambda recipe: f"runs/{recipe.name}-{recipe.loop.steps}")
    monkeypatch.setitem(vars(repae), "load", {"runs/mine-500": run}.get)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["images"][0].tolist() == list(range(10)) and names["images"][1] == 0


def test_a_path_as_data_is_looked_at(tmp_path: Path) -> None:
    """Protects `recipe("folder", data=PATH)`: the kind is found out, what the recipe says of pixels is kept."""
    from PIL import Image

    (tmp_path / "photos" / "cat").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "cat" / "1.png")
    found = repae.recipe("folder", data=tmp_path / "photos", name="mine", **{"data.flip": True})
    assert (found.name, found.data.kind, found.data.resolution, found.data.flip) == ("mine", "folder", 64, True)
    assert repae.recipe("digits") == repae.recipe(repae.recipe("digits"))
    with refused(ValueError, "loop.stepz", "did you mean 'steps'"):
        repae.recipe("digits", **{"loop.stepz": 3})
