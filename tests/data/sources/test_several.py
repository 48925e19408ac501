"""Several sources as one: classes united by name, numbers only where somebody says that they mean the same."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from errors import refused
from image_sources import encoded, picture, write_folder, write_tar, write_zip

from repae.config import UserError
from repae.data import ArchiveConfig, FolderConfig, LabelledConfig, SeveralConfig


def numbered(root: Path, labels: list[int | str]) -> LabelledConfig:
    write_folder(root, {f"{i}.png": f"{root.name}{i}".encode() for i in range(len(labels))})
    rows = [[f"{i}.png", label] for i, label in enumerate(labels)]
    (root / "dataset.json").write_text(json.dumps({"labels": rows}))
    return LabelledConfig(path=str(root))


def test_classes_of_one_name_are_one_class(tmp_path: Path) -> None:
    """Protects labels: `cat` of all sources is one class, wherever it stands among the classes of each."""
    one = FolderConfig(path=str(write_folder(tmp_path / "one", {"cat/1.png": b"1", "dog/2.png": b"2"})))
    two = ArchiveConfig(path=str(write_zip(tmp_path / "two.zip", {"ant/3.png": b"3", "cat/4.png": b"4"})))
    three = ArchiveConfig(path=str(write_tar(tmp_path / "three.tar", {"5.png": b"5"})), labels="none")
    source = SeveralConfig(sources=(one, two, three)).source()
    assert source.class_names == ("all", "ant", "cat", "dog")
    found = [(source.name(i), source.read(i), source.class_names[source.labels[i]]) for i in range(len(source))]
    assert found == [
        ("0/cat/1.png", b"1", "cat"), ("0/dog/2.png", b"2", "dog"), ("1/ant/3.png", b"3", "ant"),
        ("1/cat/4.png", b"4", "cat"), ("2/5.png", b"5", "all"),
    ]  # fmt: skip
    swapped = SeveralConfig(sources=(two, one, three)).source()
    assert swapped.class_names == source.class_names and swapped.fingerprint != source.fingerprint
    assert SeveralConfig(sources=(one, two, three)).source().fingerprint == source.fingerprint


def test_numbers_in_common_are_refused_until_they_are_said_to_mean_the_same(tmp_path: Path) -> None:
    """Protects from uniting class 3 of one labelling with class 3 of another."""
    one, two, three = (
        numbered(tmp_path / name, labels) for name, labels in (("a", [0, 1, 10]), ("b", [10, 2]), ("c", [7]))
    )
    with refused(UserError, tmp_path / "a", tmp_path / "b", "'10'", "--data.same-numbers true", "names"):
        SeveralConfig(sources=(one, two)).source()
    assert SeveralConfig(sources=(one, three)).source().class_names == ("0", "1", "7", "10")
    source = SeveralConfig(sources=(one, two), same_numbers=True).source()
    assert source.class_names == ("0", "1", "2", "10") and source.labels.tolist() == [0, 1, 3, 3, 2]
    named = numbered(tmp_path / "d", ["10", "cat"])
    assert SeveralConfig(sources=(one, named)).source().class_names == ("0", "1", "10", "cat")


def test_pixels_and_notes(tmp_path: Path) -> None:
    """Protects the whole way to a batch, and that no note of a part is lost."""
    one = FolderConfig(
        path=str(write_folder(tmp_path / "one", {"a/1.png": encoded(picture(9, 9, 1), "PNG"), "b/x": b""}))
    )
    two = FolderConfig(path=str(write_folder(tmp_path / "two", {"b/1.png": encoded(picture(9, 9, 2), "PNG")})))
    data = SeveralConfig(sources=(one, two), resolution=8).open()
    alone = [config.replace(resolution=8).open().item(0)[0] for config in (one, two)]
    assert torch.equal(data.batch(torch.tensor([1, 0])).images, torch.stack(alone[::-1]))
    assert any("no class: 'b'" in note for note in data.source.notes)


def test_fields_of_the_whole_belong_to_the_whole(tmp_path: Path) -> None:
    """Protects from a field that is taken and not used; a recipe that is written and read again is the same."""
    config = SeveralConfig(
        sources=({"kind": "folder", "path": "a"}, {"kind": "archive", "path": "b.zip"}), resolution=64
    )
    assert SeveralConfig(**config.model_dump()) == config == config.replace(resolution=64)
    assert config.model_dump()["sources"][0] == {"kind": "folder", "path": "a", "labels": "given"}
    with refused(UserError, "resolution of source 1", "set it beside `sources`"):
        SeveralConfig(sources=(FolderConfig(path="a"), FolderConfig(path="b", resolution=64)))
    assert config.where == "'a', 'b.zip'" and len(list(config.missing())) == 2
