"""docs/data.md is run: every command in it finds the data that it is about."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from errors import assert_tells
from image_sources import encoded, picture, table, write_folder, write_hdf5, write_shards, write_tar, write_zip

from repae.cli import COMMANDS, Arguments, main
from repae.data import SeveralConfig
from repae.recipes.catalogue import compose

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
LINES = re.findall(r"^repae train .*$", PAGE, flags=re.MULTILINE) + re.findall(r"`(repae train folder [^`]*)`", PAGE)
KINDS = dict(re.findall(r"`(repae train [^`]*)` \| `([a-z0-9-]+)` \|$", PAGE, flags=re.MULTILINE))
ELSEWHERE = ("s3://", "hf://")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the page names."""
    root = tmp_path_factory.mktemp("place")
    files = {f"{own}/{i}.png": encoded(picture(8, 8, i), "PNG") for own in ("cat", "dog") for i in range(4)}
    flat = {name.replace("/", "-"): content for name, content in files.items()}
    listed = json.dumps({"labels": [[name, name[:3]] for name in flat]}).encode()
    write_folder(root / "photos", files)
    write_folder(root / "listed", flat | {"dataset.json": listed})
    write_folder(root / "flat", flat)
    write_folder(root / "other", {"table.csv": "\n".join(f"{name},{name[:3]}" for name in flat).encode()})
    write_zip(root / "photos.zip", files)
    write_tar(root / "splits.tar", {f"{split}/{name}": files[name] for split in ("train", "val") for name in files})
    write_shards(root / "shards", files)
    rows = table(files)
    (root / "parquet").mkdir()
    rows.to_parquet(root / "parquet" / "train-00000-of-00001.parquet")
    __import__("datasets").DatasetDict({"validation": rows}).save_to_disk(str(root / "saved"))
    write_hdf5(root / "reference", files)
    return root


@pytest.mark.parametrize("line", LINES)
def test_a_documented_command_finds_its_data(
    line: str, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Protects the page: the kind it says, all images, both classes, and the recipe's resolution."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    words = Arguments.read(shlex.split(line)[2:], COMMANDS["train"].switches)
    data = compose(words.only("a recipe"), words.options).data
    assert data.kind == KINDS.get(line, "several") and data.resolution == 64
    if any(sign in line for sign in ELSEWHERE):
        return
    source = data.source()
    assert len(source) == (16 if isinstance(data, SeveralConfig) else 8)
    assert len(source.class_names) == (1 if "none" in line else 2)
    assert list(data.missing()) == []


def test_the_page_has_every_kind() -> None:
    """Protects against a kind that nobody learns of."""
    named = set(re.findall(r"\| `([a-z0-9-]+)` \|$", PAGE, flags=re.MULTILINE))
    assert {"folder", "labelled", "archive", "webdataset", "huggingface", "reference-hdf5", "several"} <= named
    assert len(KINDS) >= 11


def test_options_beside_the_path(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects `--data PATH`: pixels as the recipe has them unless changed, other fields of the recipe as they were."""
    monkeypatch.chdir(place)
    digits, folder = compose("digits", {}), compose("folder", {"data.upright": "true"})
    found = compose("digits", {"data": "photos.zip", "data.flip": "true", "loop.steps": "7"})
    assert found.data.kind == "archive" and found.data.flip and found.data.resolution == digits.data.resolution
    assert found.loop.steps == 7 and found.backbone == digits.backbone
    assert not folder.data.flip and folder.data.upright and folder.data.path == "images"
    shutil.copytree("photos", "123", dirs_exist_ok=True)
    assert compose("folder", {"data": "123"}).data.path == "123"
    assert compose("folder", {"data": "{kind: digits, resolution: 8}"}).data.kind == "digits"
    assert compose("folder", {"data": "photos", "data.kind": "labelled"}).data.kind == "labelled"


def test_wrong_data_is_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects the command line: exit status 2 and what to do, also where the data fit but the recipe does not."""
    monkeypatch.chdir(place)
    for words, facts in (
        (["--data", "flat"], ["flat", "--data.labels none"]),
        (["--data", "nowhere"], ["'nowhere'", "correct the path"]),
        (["--data"], ["--data needs a value"]),
        (["--data", "photos", "--data.split", "train"], ["split", "'train'", "not a field"]),
    ):
        assert main(["train", "folder", *words, "--dry-run"]) == 2
        error = capsys.readouterr().err
        assert_tells(error, *facts)
        assert error.count("\n") == 1


@pytest.mark.slow
def test_a_dry_run_says_what_was_found(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects the plan for every kind: images and classes where they are at hand, what is missing where not."""
    monkeypatch.chdir(place)
    monkeypatch.setattr("repae.runs.preflight.rehearsal.activations", lambda *arguments: 0.0)
    assert main(["train", "folder", "--data", "photos.zip", "--dry-run"]) == 0
    assert "photos.zip, 8 images of 64 px, 2 classes" in capsys.readouterr().out
    gone = "{kind: archive, path: gone.zip, resolution: 64}"
    assert main(["train", "folder", "--data", gone, "--dry-run"]) == 0
    assert "there is nothing at gone.zip" in capsys.readouterr().out.replace("\n            ", " ")
