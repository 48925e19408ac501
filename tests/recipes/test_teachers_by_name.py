"""Teachers by name wherever a recipe is made: on the command line, in a file, in Python."""

from __future__ import annotations

import re
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from errors import refused

from repae.cli import COMMANDS, Arguments, main
from repae.config import UserError
from repae.models.teachers import extract
from repae.models.teachers.catalogue import entry_of
from repae.models.teachers.timm import TimmTeacherConfig
from repae.recipes.catalogue import compose, find
from repae.recipes.recipe import EmbeddedTeacherTraining, Recipe
from repae.runs.preflight.check import preflight

TWO = (TimmTeacherConfig(name="dinov2-b"), TimmTeacherConfig(name="clip-l"))


@pytest.mark.parametrize(
    ("text", "teachers"),
    [
        ("dinov2-vit-b,clip-vit-L", TWO),
        ("dinov2-b, clip-l", TWO),
        ("[dinov2-b, {kind: timm, name: clip-vit-L}]", TWO),
        ("[{kind: timm, name: dinov2-b}, {kind: timm, name: clip-l}]", TWO),
        ("jepa-vit-h", (TimmTeacherConfig(name="ijepa-h"),)),
        ("embedded", (EmbeddedTeacherTraining(),)),
        ("none", ()),
        ("[]", ()),
    ],
)
def test_the_option_takes_names(text: str, teachers: tuple[Any, ...]) -> None:
    """The reference's comma list, the catalogue's names, whole configurations, and no teacher at all."""
    assert compose("digits", {"teachers": text}).teachers == teachers


def test_fields_of_a_named_teacher_can_be_given_beside_it() -> None:
    """A list by name and the local file of one of them, in one command."""
    options = {"teachers.0.weights": "moco.pth", "teachers": "mocov3-vit-s,dinov2-b", "teachers.1.grid": "16"}
    first, second = compose("digits", options).teachers
    assert first == TimmTeacherConfig(name="mocov3-s", weights="moco.pth") and second == TimmTeacherConfig(
        name="dinov2-b", grid=16
    )


def test_a_file_takes_names_and_is_written_in_full(tmp_path: Path) -> None:
    """A recipe of one's own is as short as an option; the run's own file says everything."""
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nteachers: dinov2-vit-b,clip-vit-L\n", encoding="utf-8")
    recipe = find(str(path))
    assert recipe.teachers == TWO
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    assert "kind: timm" in path.read_text(encoding="utf-8") and find(str(path)) == recipe
    assert Recipe(name="mine", teachers="dinov2-b,clip-l").teachers == TWO  # type: ignore[arg-type]


def test_an_unknown_name_is_refused_before_anything_is_trained() -> None:
    """With the nearest name."""
    with refused(UserError, "'dinov2-vit-c'", "`repae teachers`", "did you mean 'dinov2-s'"):
        preflight(compose("folder", {"teachers": "dinov2-vit-c"})).images()


def test_the_command_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    """`repae teachers`: a line for each, what gated means in its help, and no options."""
    assert main(["teachers"]) == 0
    out = capsys.readouterr().out
    assert "mocov3-s" in out and "hub: timm/vit_base_patch14_dinov2.lvd142m" in out
    assert main(["teachers", "--help"]) == 0
    assert "gated" in capsys.readouterr().out
    assert main(["teachers", "--verbose", "3"]) == 2


PAGE = (Path(__file__).parents[2] / "docs" / "teachers.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("line", re.findall(r"^repae .*$", PAGE, flags=re.MULTILINE))
def test_the_page_s_commands_are_understood(line: str) -> None:
    """Every command of docs/teachers.md is one, and every training of it a recipe whose teachers exist."""
    command, *words = shlex.split(line)[1:]
    read = Arguments.read(words, COMMANDS[command].switches)
    if command == "train":
        for teacher in compose(read.only("a recipe"), read.options).teachers:
            assert not isinstance(teacher, TimmTeacherConfig) or timm.is_model(entry_of(teacher.name).model)


def test_the_page_s_recipe_is_one(tmp_path: Path) -> None:
    """Teachers in full, as a file has them."""
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\n{text}", encoding="utf-8")
    moco, clip = find(str(path)).teachers
    assert (
        isinstance(moco, TimmTeacherConfig) and moco.weights and isinstance(clip, TimmTeacherConfig) and clip.final_norm
    )


def test_the_page_s_python_does_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two teachers by the reference's names, with the shapes stated; on the meta device, where weights take no room."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    unloaded = partial(extract.TimmTeacher, load=False)
    monkeypatch.setattr(extract, "TimmTeacher", unloaded)
    names: dict[str, Any] = {}
    with torch.device("meta"):
        exec(code.replace("load_teachers(", "load_teachers(device='meta', names="), names)
    assert names["dino"].shape == (2, 256, 768) and names["clip"].shape == (2, 256, 1024)
    assert names["dino"].dtype == torch.float32
