"""From a path to a configuration: every kind is recognised by its content, and what is none is refused in words."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import fsspec
import pytest
from errors import refused
from image_sources import MAKERS, Files, encoded, picture, write_folder, write_shards, write_tar, write_zip

from repae.config import UserError
from repae.data import ShardsConfig
from repae.data.sources.detect import detect, kinds

PNG = encoded(picture(8, 8), "PNG")
FILES: Files = {f"{own}/{i}.png": PNG for own in ("cat", "dog") for i in range(5)}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_is_recognised(kind: str, tmp_path: Path) -> None:
    """Protects `--data PATH`: what a person has becomes the configuration that reads it, options included."""
    config = MAKERS[kind](tmp_path / "set", FILES)
    options = {name: value for name in ("cache", "classes") if (value := getattr(config, name, None)) is not None}
    found = detect(config.path, resolution=8, **options)
    assert found == config.replace(resolution=8)
    assert found.open().class_names == config.source().class_names


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    """Protects files whose suffix is wrong or missing."""
    assert detect(str(write_zip(tmp_path / "a.tar", FILES))).kind == "archive"
    assert detect(str(write_tar(tmp_path / "a", FILES))).kind == "archive"
    write_shards(tmp_path / "shards", FILES).joinpath("000.tar").rename(tmp_path / "b")
    assert detect(str(tmp_path / "b")).kind == "webdataset"


@pytest.mark.parametrize(
    "files, kind",
    [
        ({**FILES, "dataset.json": b"{}"}, "labelled"),
        ({**FILES, "labels.csv": b""}, "labelled"),
        ({**FILES, "notes.csv": b""}, "folder"),
        ({"1.png": PNG, "any.csv": b""}, "labelled"),
        ({**FILES, "loose.png": PNG}, "folder"),
        ({"data/train-0.parquet": b"PAR1"}, "huggingface"),
        ({"train-0.parquet": b"PAR1"}, "huggingface"),
        ({"a.arrow": b"", "state.json": b"{}"}, "huggingface"),
        ({"images.h5": b""}, "reference-hdf5"),
        ({"notes.txt": b""}, "folder"),
    ],
)
def test_folders(files: Files, kind: str, tmp_path: Path) -> None:
    """Protects the order in which a folder is judged: a table that is named as tables are wins over class folders."""
    assert detect(str(write_folder(tmp_path / "set", files))).kind == kind


def test_a_folder_of_prepared_shards(tmp_path: Path) -> None:
    """Protects what `repae prepare` wrote, here and in object storage."""
    root = write_folder(tmp_path / "set", {**FILES, "manifest.json": b"{}"})
    assert isinstance(detect(str(root)), ShardsConfig)
    fsspec.filesystem("memory").pipe("/prepared/manifest.json", b"{}")
    assert isinstance(detect("memory://prepared"), ShardsConfig)


def test_urls() -> None:
    """Protects object storage and the hub: by pattern, by suffix, by a look at the first bytes."""
    store = fsspec.filesystem("memory")
    for name, content in (("/look/zip", b"PK\x03\x04"), ("/look/text", b"text"), ("/look/h5", b"\x89HDF")):
        store.pipe(name, content)
    assert detect("hf://owner/name", split="validation").kind == "huggingface"
    assert detect("s3://bucket/{000..999}.tar").kind == "webdataset"
    assert detect("https://host/set/train.parquet?download=true").kind == "huggingface"
    assert detect("memory://look/zip").kind == "archive"
    with refused(UserError, "memory://look/h5", "HDF5", "download it", "local path"):
        detect("memory://look/h5")
    with refused(UserError, "memory://look/text", "unknown kind", "dataset.json", "`repae prepare`"):
        detect("memory://look/text")
    with refused(UserError, "memory://look/nothing", "not there", "correct the URL"):
        detect("memory://look/nothing")


def test_images_without_classes(tmp_path: Path) -> None:
    """Protects a person with a flat folder: both remedies, and the second one works as it is written."""
    root = write_folder(tmp_path / "set", {"1.png": PNG, "2.png": PNG})
    with refused(UserError, root, "class", "set/cat/1.jpg", "set/labels.csv", "--data.labels none"):
        detect(str(root))
    assert detect(str(root), labels="none").open().class_names == ("all",)
    (tmp_path / "else.json").write_text(json.dumps({"labels": [["1.png", "a"]]}))
    assert len(detect(str(root), table=str(tmp_path / "else.json")).open()) == 1
    assert detect(str(write_folder(tmp_path / "classes", FILES)), labels="none").open().class_names == ("all",)


def test_a_kind_that_is_given_is_taken(tmp_path: Path) -> None:
    """Protects who knows better; a kind that is not there is refused with the nearest."""
    assert detect(str(tmp_path), kind="archive").kind == "archive"
    with refused(UserError, "'archiv'", "did you mean 'archive'", "folder, labelled, archive"):
        detect(str(tmp_path), kind="archiv")
    with refused(UserError, "splt", "'x'", "did you mean 'split'"):
        detect("hf://owner/name", splt="x")


def bad(root: Path) -> dict[str, tuple[str, list[str]]]:
    """Paths that cannot be used, with what must be told about each."""
    write_folder(
        root,
        {
            "image.png": PNG, "labels.csv": b"a,b", "recipe.yaml": b"", "empty": b"", "some.bin": b"123",
            "a.tar.gz": gzip.compress(b"x"), "tars/n01.tar": write_tar(root / "n01", {"1.png": PNG}).read_bytes(),
        },
    )  # fmt: skip
    return {
        "image": (str(root / "image.png"), ["a single image", "folder of class folders"]),
        "table": (str(root / "labels.csv"), ["a table", "give the folder", "--data.table"]),
        "recipe": (str(root / "recipe.yaml"), ["a recipe", "the recipe's name"]),
        "empty": (str(root / "empty"), ["empty file", "folder of class folders"]),
        "unknown": (str(root / "some.bin"), ["unknown kind", "folder of class folders"]),
        "gzip": (str(root / "a.tar.gz"), ["gzip", "gunzip -k"]),
        "class tars": (str(root / "tars"), ["no WebDataset shards", "'n01.tar'", "unpack each"]),
        "nothing": (str(root / "no" / "such"), [f"'{root}'", "correct the path", "folder of class folders"]),
        "hub": ("owner/name", ["correct the path", "hf://owner/name"]),
        "too long": ("x" * 5000, ["correct the path"]),
    }


CASES = ["image", "table", "recipe", "empty", "unknown", "gzip", "class tars", "nothing", "hub", "too long"]


@pytest.mark.parametrize("case", CASES)
def test_what_is_no_data_is_refused_in_words(case: str, tmp_path: Path) -> None:
    """Protects the user: one line with what was seen, what is allowed, and what to do."""
    path, facts = bad(tmp_path)[case]
    with refused(UserError, path, *facts) as error:
        detect(path)
    assert "\n" not in str(error.value)


def test_every_kind_has_its_test() -> None:
    """Protects this file: a new kind with a path belongs into the common suite, or is named here."""
    made: set[Any] = {"folder", "labelled", "archive", "webdataset", "huggingface", "reference-hdf5"}
    assert set(kinds()) == {*made, "shards"}
