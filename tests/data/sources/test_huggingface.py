"""Hub data sets and their files, written by `datasets` itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from errors import refused
from image_sources import write_folder

from repae.config import UserError
from repae.data import HuggingFaceConfig
from repae.data.image_source import BrokenImageError, ImageSource

CONTENTS = [b"one", b"three", b"four4"]


def rows(labels: list[Any], feature: object = None, image: object = None) -> datasets.Dataset:
    images = [{"bytes": content, "path": None} for content in CONTENTS]
    features = datasets.Features({"image": image or datasets.Image(), "label": feature or datasets.Value("int64")})
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


def opened(path: Path, tmp_path: Path, **options: Any) -> ImageSource:
    return HuggingFaceConfig(path=str(path), cache=str(tmp_path / "cache"), **options).source()


def contents(source: ImageSource) -> list[tuple[bytes, str]]:
    return [(source.read(i), source.class_names[source.labels[i]]) for i in range(len(source))]


def saved(found: Any, tmp_path: Path) -> Path:
    found.save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_parquet_files(tmp_path: Path) -> None:
    """Protects a file and a folder of parts, as hub data sets are downloaded; images are the bytes of the file."""
    folder = tmp_path / "data"
    folder.mkdir()
    found = rows([0, 1, 0], datasets.ClassLabel(names=["cat", "dog"]))
    found.select([0]).to_parquet(folder / "train-00000-of-00002.parquet")
    found.select([1, 2]).to_parquet(folder / "train-00001-of-00002.parquet")
    found.select([2]).to_parquet(folder / "validation-00000-of-00001.parquet")
    assert contents(opened(folder, tmp_path)) == [(b"one", "cat"), (b"three", "dog"), (b"four4", "cat")]
    validation = opened(folder, tmp_path, split="validation")
    assert contents(validation) == [(b"four4", "cat")] and "1 of the 2 classes" in validation.notes[0]
    assert contents(opened(folder / "train-00001-of-00002.parquet", tmp_path)) == [(b"three", "dog"), (b"four4", "cat")]
    with refused(UserError, folder, '"test"', "'train', 'validation'", "--data.split"):
        opened(folder, tmp_path, split="test")


def test_arrow_files_are_used_where_they_lie(tmp_path: Path) -> None:
    """Protects from copying: a stream of `datasets`' own cache, and a folder of them."""
    for i in range(2):
        with datasets.arrow_writer.ArrowWriter(
            path=str(tmp_path / f"{i}.arrow"), features=rows([0, 0, 0]).features
        ) as writer:
            for row in rows([i, i, i]).cast_column("image", datasets.Image(decode=False)):
                writer.write(row)
            writer.finalize()
    assert contents(opened(tmp_path / "1.arrow", tmp_path)) == [(content, "1") for content in CONTENTS]
    assert len(opened(tmp_path, tmp_path)) == 6
    assert not (tmp_path / "cache").exists()


def test_save_to_disk_with_and_without_splits(tmp_path: Path) -> None:
    """Protects the choice of the split, and names those that there are."""
    parts = datasets.DatasetDict({"train": rows([0, 1, 1]), "validation": rows([1, 0, 0])})
    path = saved(parts, tmp_path)
    assert opened(path, tmp_path).labels.tolist() == [0, 1, 1]
    assert opened(path, tmp_path, split="validation").labels.tolist() == [1, 0, 0]
    with refused(UserError, "'valid'", "did you mean 'validation'", "has 'train', 'validation'", "--data.split"):
        opened(path, tmp_path, split="valid")


def test_imagefolder(tmp_path: Path) -> None:
    """Protects images that a data set has by their path alone."""
    write_folder(tmp_path / "set", {"cat/1.png": b"one", "dog/2.png": b"three"})
    assert contents(opened(tmp_path / "set", tmp_path)) == [(b"one", "cat"), (b"three", "dog")]


@pytest.mark.parametrize(
    "labels, feature, names, found",
    [
        (["dog", "cat", "dog"], datasets.Value("string"), ("cat", "dog"), [1, 0, 1]),
        ([7, 3, 7], datasets.Value("int16"), ("3", "7"), [1, 0, 1]),
        ([1, None, 0], datasets.Value("int64"), ("0", "1"), [1, 0]),
        (["1", None, ""], datasets.Value("string"), ("1",), [0]),
        ([1, -1, 0], datasets.ClassLabel(names=["a", "b"]), ("a", "b"), [1, 0]),
        ([1.0, 0.0, 0.0], datasets.Value("float32"), ("0", "1"), [1, 0, 0]),
    ],
)
def test_classes(labels: list[Any], feature: object, names: tuple[str], found: list[int], tmp_path: Path) -> None:
    """Protects the common rule for labels in columns of every type; -1 of a class column is `datasets`' own nothing."""
    source = opened(saved(rows(labels, feature), tmp_path), tmp_path)
    assert (source.class_names, source.labels.tolist()) == (names, found)
    kept = [content for content, label in zip(CONTENTS, labels) if label not in (None, "", -1)]
    assert [source.read(i) for i in range(len(source))] == kept
    if len(found) < 3:
        assert any("without a class" in note for note in source.notes)


def test_images_that_are_not_there(tmp_path: Path) -> None:
    """Protects training: a row without image is a broken image; a path counts from the table's folder."""
    write_folder(tmp_path, {"saved-images/1.png": b"inside"})
    images = [{"bytes": None, "path": "saved-images/1.png"}, None, {"bytes": None, "path": "gone.png"}]
    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("int64")})
    found = datasets.Dataset.from_dict({"image": images, "label": [0, 1, 0]}, features=features)
    pyarrow.parquet.write_table(found.data.table, tmp_path / "a.parquet")
    source = opened(tmp_path / "a.parquet", tmp_path)
    assert source.read(0) == b"inside"
    with refused(BrokenImageError, "row holds no image"):
        source.read(1)
    with pytest.raises(FileNotFoundError):
        source.read(2)
    assert len(source.fingerprint) == 32


def test_a_column_of_bytes_is_images(tmp_path: Path) -> None:
    """Protects parquet that `datasets` did not write, from spark or polars."""
    pyarrow.parquet.write_table(pyarrow.table({"png": CONTENTS, "kind": ["b", "a", "b"]}), tmp_path / "a.parquet")
    source = opened(tmp_path / "a.parquet", tmp_path, image="png", label="kind")
    assert contents(source) == [(b"one", "b"), (b"three", "a"), (b"four4", "b")]


def test_wrong_columns_are_refused_by_name(tmp_path: Path) -> None:
    """Protects the user: the columns that there are, and the option."""
    path = saved(rows([0, 1, 0]).rename_column("label", "fine_label"), tmp_path)
    with refused(UserError, "'label'", "did you mean 'fine_label'", "--data.label", "--data.labels none"):
        opened(path, tmp_path)
    with refused(UserError, "'img'", "has 'image', 'fine_label'", "--data.image"):
        opened(path, tmp_path, image="img", labels="none")
    with refused(UserError, "'fine_label'", "Value('int64')", "no images", "--data.image"):
        opened(path, tmp_path, image="fine_label", label="fine_label")
    assert opened(path, tmp_path, labels="none").class_names == ("all",)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects an installation without the extra: the command that installs it."""
    monkeypatch.setitem(sys.modules, "datasets", None)
    with refused(UserError, "hf://owner/name", "pip install 'repae[datasets]'"):
        HuggingFaceConfig(path="hf://owner/name").source()


def test_the_hub_without_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects machines without a network: one line with what to do instead."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with refused(UserError, "'hf://owner/name'", "without a connection", "save_to_disk") as error:
        opened("hf://owner/name", tmp_path)
    assert "\n" not in str(error.value)
