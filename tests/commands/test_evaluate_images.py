"""`repae evaluate --images A --reference B` and the networks at hand, on small images and a small teacher."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from errors import assert_tells, refused
from npz_files import write_npz

from repae.cli import main
from repae.cli.arguments import Arguments
from repae.commands.evaluate import run_evaluation
from repae.commands.evaluate_images import images_evaluation
from repae.config import UserError
from repae.data import DigitsConfig
from repae.evaluation import EvaluationConfig
from repae.models.teachers.embedded import EmbeddedTeacher, EmbeddedTeacherConfig
from repae.recipes.catalogue import find
from repae.recipes.recipe import Recipe, RuntimeConfig
from repae.runs.context import RunContext
from repae.runs.networks import networks_at_hand
from repae.runtime.precision import Precision

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with `samples.npz`, `reference.npz` and a saved teacher of RGB images, and no weights in any cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    generator = torch.Generator().manual_seed(0)
    for name, count in (("samples", 40), ("reference", 50)):
        images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
        write_npz(f"{name}.npz", images, torch.arange(count) % 2)
    EmbeddedTeacher(EmbeddedTeacherConfig(image_channels=3)).save("teacher")
    return tmp_path


OPTIONS = ["--features.kind", "embedded", "--features.folder", "teacher", "--resamples", "2", "--subsets", "2"]


def test_images_made_elsewhere_are_measured(here, capsys):
    """A table on the screen, and beside the images JSON with everything that the figures depend on."""
    (here / "samples.json").write_text(json.dumps({"sampler": "heun", "steps": 18, "guidance": 1.5}))
    argv = ["evaluate", "--images", "samples.npz", "--reference", "reference.npz", *OPTIONS]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "fd_teacher" in out and "40 images for 96 dimensions" in out and "samples.evaluation.json" in out
    result = json.loads((here / "samples.evaluation.json").read_text())
    protocol = result["protocol"]
    assert (
        protocol["images"] == 40
        and protocol["reference"]["images"] == 50
        and len(protocol["reference"]["sha256"]) == 24
    )
    assert protocol["made"]["manifest"] == {"sampler": "heun", "steps": 18, "guidance": 1.5}
    assert protocol["networks"]["teacher"]["sha256"] and protocol["comparison"]["neighbours"] == 3
    assert len(result["classes"]["teacher"]) == 2 and "fd_teacher" in result["intervals"]
    before = {path.name for path in (here / "runs" / "cache").iterdir()}
    assert (
        main(argv) == 0 and {path.name for path in (here / "runs" / "cache").iterdir()} == before and len(before) == 2
    )
    assert main([*argv, "--neighbours", "5", "--out", "other.json"]) == 0
    assert main(["compare", "samples.evaluation.json", "other.json"]) == 0
    assert "comparison.neighbours: 3 | 5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ("--images samples.npz", ["--reference is missing"]),
        ("--reference reference.npz", ["--images is missing"]),
        ("--images nowhere --reference reference.npz", ["'nowhere'", ".npz"]),
        ("--images samples.npz --reference small.npz", ["32 x 32 px", "8 x 8 px", "one size"]),
        ("--images floats.npz --reference reference.npz", ["floats.npz", "float32", "0..255"]),
        ("--images samples.npz --reference reference.npz --metrics sfid", ["sfid", "Inception features"]),
        ("--images samples.npz --reference reference.npz --metrics fdi", ["metrics", "'fdi'", "'fid'"]),
        ("--images samples.npz --reference reference.npz --metrix fid", ["metrix", "did you mean 'metrics'"]),
        (
            "--images samples.npz --reference reference.npz --features inception --features.weights w.pth",
            ["w.pth", "--features.weights"],
        ),
    ],
)
def test_wrong_words_are_refused_in_one_line(here, capsys, options, facts):
    """Nothing is computed, and the line says what would be right."""
    write_npz("small.npz", torch.zeros(9, 3, 8, 8, dtype=torch.uint8), torch.zeros(9).long())
    np.savez("floats.npz", np.zeros((9, 32, 32, 3), np.float32))
    network = [] if "--features" in options else OPTIONS
    assert main(["evaluate", *shlex.split(options), *network]) == 2
    error = capsys.readouterr().err
    assert_tells(error, *facts)
    assert error.count("\n") == 1 and not (here / "runs").exists()


def _context(folder):
    device = torch.device("cpu")
    return RunContext(device, Precision("fp32", device), RuntimeConfig(), folder)


def test_networks_at_hand_are_found_and_missing_ones_named(here):
    """A saved teacher serves; one that is gone, the Inception and LPIPS are named with the file that is wanted."""
    dataset, settings = DigitsConfig().open(), EvaluationConfig()
    gone = networks_at_hand(find("digits"), settings, dataset, _context(here))
    assert_tells(gone.missing[0], "features of teacher", "no longer kept")
    assert_tells(gone.missing[-1], "vgg16-397923af.pth")
    assert gone.extractors == [] and not any("FID" in words for words in gone.missing)
    EmbeddedTeacher(EmbeddedTeacherConfig()).save("grey")
    recipe = find("digits").replace(**{"teachers.0.folder": "grey"})
    found = networks_at_hand(recipe, settings, dataset, _context(here))
    assert [network.name for network in found.extractors] == ["teacher"] and len(found.missing) == 1
    dataset.channels = 3
    assert (
        "weights-inception-2015-12-05-6726825d.pth"
        in networks_at_hand(recipe, settings, dataset, _context(here)).missing[0]
    )
    with refused(UserError, "x.pth", "weights-inception-2015-12-05-6726825d.pth", "--features.weights"):
        asked = settings.replace(features=({"kind": "inception", "weights": "x.pth"},))
        networks_at_hand(recipe, asked, dataset, _context(here))


def test_recipes_of_before_are_still_read(tmp_path):
    """A recipe.yaml that knows none of the new fields gets their defaults."""
    recipe = find("digits").model_dump(mode="json")
    for name in ("features", "comparison", "lpips", "reference_images"):
        del recipe["evaluation"][name]
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    assert Recipe.from_yaml(path).evaluation == find("digits").evaluation


def test_options_of_a_run_change_its_recipes_evaluation(tmp_path):
    """Everything that is not named stays; several networks are named by words."""
    (tmp_path / "recipe.yaml").write_text(find("digits").to_yaml())
    own = find("digits").evaluation
    found = run_evaluation(tmp_path, {"sampler.steps": "7", "features": "dinov2,inception", "bundle": "live"})
    assert found.sampler.steps == 7 and found.images == own.images and found.bundle == "live"
    assert [network.kind for network in found.features] == ["dinov2", "inception"]


@pytest.mark.parametrize("line", re.findall(r"^repae evaluate .*$", PAGE, flags=re.MULTILINE))
def test_the_documented_commands_are_understood(line, tmp_path, monkeypatch):
    """Every evaluation on the page is a valid one."""
    monkeypatch.chdir(tmp_path)
    words = Arguments.read(shlex.split(line)[2:], ())
    if not words.positional:
        assert images_evaluation(words.options)
        return
    Path(words.positional[0]).mkdir(parents=True)
    (Path(words.positional[0]) / "recipe.yaml").write_text(find("digits").to_yaml())
    assert run_evaluation(Path(words.positional[0]), words.options)


def test_the_documented_python_is_carried_out(here):
    """The page's example in Python runs as it stands, on the files it names."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names = {}
    exec(compile(code, "docs/evaluation.md", "exec"), names)
    assert set(names["found"].figures) >= {"fd_teacher", "precision_teacher"} and names["found"].warnings
