"""Tables of classes: which is used, in which forms it may be, and what does not fit the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from errors import refused
from image_sources import write_folder

from repae.config import UserError
from repae.data import ArchiveConfig, LabelledConfig
from repae.data.image_source import ImageSource

FILES = {"a.png": b"1", "in/b.jpg": b"22", "c.webp": b"333"}


def opened(root: Path, table: str, name: str = "labels.csv", **options: object) -> ImageSource:
    write_folder(root, {**FILES, name: table.encode()})
    return LabelledConfig(path=str(root), **options).source()


def contents(source: ImageSource) -> dict[str, str]:
    return {source.name(i): source.class_names[source.labels[i]] for i in range(len(source))}


@pytest.mark.parametrize(
    "name, table",
    [
        ("labels.csv", "file,class\nc.webp,y\na.png,x\nin/b.jpg,x\n"),
        ("labels.csv", "\ufeffid,label,file_name\r\n1,x,a.png\r\n2,x,in/b.jpg\r\n3,y,c.webp\r\n"),
        ("labels.csv", "a.png;x\nin/b.jpg;x\n\nc.webp;y"),
        ("labels.csv", 'Name\tCategory\n"a.png"\tx\nin\\b.jpg\tx\n./c.webp\ty'),
        ("metadata.csv", "file_name,label\na.png,x\nin/b.jpg,x\nc.webp,y"),
        ("whatever.csv", "a.png,x\nin/b.jpg,x\nc.webp,y"),
        ("dataset.json", '{"labels": [["c.webp", "y"], ["a.png", "x"], ["in/b.jpg", "x"]]}'),
        ("dataset.json", '{"labels": {"c.webp": "y", "a.png": "x", "in/b.jpg": "x"}}'),
        ("dataset.json", '[["c.webp", "y"], ["a.png", "x"], ["in/b.jpg", "x"]]'),
    ],
)
def test_every_form_of_a_table(name: str, table: str, tmp_path: Path) -> None:
    """Protects tables by spreadsheets, by pandas, by StyleGAN: order, quoting and spelling of a path do not matter."""
    source = opened(tmp_path, table, name)
    assert contents(source) == {"a.png": "x", "c.webp": "y", "in/b.jpg": "x"}
    assert source.notes == ()


def test_the_table_that_counts(tmp_path: Path) -> None:
    """Protects against the wrong one: dataset.json before CSV, a given one before all, and no guess among several."""
    root = write_folder(tmp_path / "set", {**FILES, "one.csv": b"a.png,1", "two.csv": b"a.png,2"})
    with refused(UserError, root, "'one.csv', 'two.csv'", "--data.table NAME"):
        LabelledConfig(path=str(root)).source()
    assert LabelledConfig(path=str(root), table="two.csv").source().class_names == ("2",)
    (tmp_path / "else.csv").write_text("in/b.jpg,cow")
    assert contents(LabelledConfig(path=str(root), table=str(tmp_path / "else.csv")).source()) == {"in/b.jpg": "cow"}
    (root / "labels.csv").write_text("a.png,3")
    assert LabelledConfig(path=str(root)).source().class_names == ("3",)
    (root / "dataset.json").write_text('{"labels": [["a.png", 0]]}')
    assert LabelledConfig(path=str(root)).source().class_names == ("0",)
    with refused(UserError, "'no.csv'", root, "No such file", "correct --data.table"):
        LabelledConfig(path=str(root), table="no.csv").source()


def test_what_does_not_fit_is_left_out_and_told(tmp_path: Path) -> None:
    """Protects against a set that is smaller without a word: absent, unlisted, repeated, without class."""
    source = opened(tmp_path, "file,class\na.png,x\na.png,x\nc.webp,\ngone.png,x\ngone too.png,y\n")
    assert contents(source) == {"a.png": "x"}
    assert [note.replace(str(tmp_path), "ROOT") for note in source.notes] == [
        "1 image without a class in 'ROOT/labels.csv' left out",
        "2 images listed in 'ROOT/labels.csv' but not there, such as 'gone too.png'",
        "1 image not listed in 'ROOT/labels.csv' left out",
        "1 line of 'ROOT/labels.csv' repeated, counted once",
    ]


def test_null_in_json_is_no_class(tmp_path: Path) -> None:
    """Protects StyleGAN's own form of an image without label."""
    source = opened(tmp_path, '{"labels": [["a.png", null], ["c.webp", 0], ["in/b.jpg", 5]]}', "dataset.json")
    assert contents(source) == {"c.webp": "0", "in/b.jpg": "5"}
    assert len(source.notes) == 2 and "the numbers 0, 5" in source.notes[1]


@pytest.mark.parametrize(
    "name, table, facts",
    [
        ("labels.csv", "a.png,x\na.png,y", ["'a.png'", "twice", "'x' and 'y'", "remove one"]),
        ("labels.csv", "no.png,x\nnone.png,y", ["none of the 2", "'no.png'", "count from the folder"]),
        ("labels.csv", "", ["empty file", "dataset.json as"]),
        ("labels.csv", "file,class", ["no images", "count from the folder"]),
        ("labels.csv", "id,width,height\n1,2,3", ["'id', 'width', 'height'", "file_name", "label"]),
        ("labels.csv", "file,class\na.png", ["too few columns", "'a.png'", "give each image a line"]),
        ("labels.csv", "a.png,-1", ["'a.png'", -1, "from 0 on", "leave it empty"]),
        ("dataset.json", '{"labels": null}', ["no labels", "--data.labels none"]),
        ("dataset.json", "{]", ["JSON", "line 1 column 2", "dataset.json as"]),
        ("dataset.json", '{"images": []}', ["list of names", "dataset.json as"]),
        ("dataset.json", '{"labels": ["a.png"]}', ["list of names", "dataset.json as"]),
        ("dataset.json", '{"labels": [["a.png", [1, 0]]]}', ["'a.png'", "[1, 0]", "one for each image"]),
        ("dataset.json", '{"labels": [["a.png", null]]}', ["no image a class", "--data.labels none"]),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_words(
    name: str, table: str, facts: list[object], tmp_path: Path
) -> None:
    """Protects the user: one line with the table, what stands in it, what is allowed."""
    with refused(UserError, tmp_path / name, *facts) as error:
        opened(tmp_path, table, name)
    assert "\n" not in str(error.value)


def test_a_table_that_is_no_utf8(tmp_path: Path) -> None:
    """Protects names from being guessed: an old spreadsheet's bytes are named."""
    write_folder(tmp_path, {**FILES, "labels.csv": "a.png,Bär".encode("latin-1")})
    with refused(UserError, tmp_path / "labels.csv", "byte 7", "save it as UTF-8"):
        LabelledConfig(path=str(tmp_path)).source()


def test_without_a_table(tmp_path: Path) -> None:
    """Protects the user who has none: both remedies are named, and one class for all is there for the asking."""
    write_folder(tmp_path, FILES)
    with refused(UserError, tmp_path, "dataset.json", "labels.csv", "--data.table FILE", "--data.labels none"):
        LabelledConfig(path=str(tmp_path)).source()
    source = LabelledConfig(path=str(tmp_path), labels="none").source()
    assert source.class_names == ("all",) and source.labels.tolist() == [0, 0, 0]
    assert [source.read(i) for i in range(3)] == [b"1", b"333", b"22"]
    (tmp_path / "empty").mkdir()
    with refused(UserError, tmp_path / "empty", "JPEG, PNG or WebP", "correct the path"):
        LabelledConfig(path=str(tmp_path / "empty"), labels="none").source()


def test_a_table_in_the_one_folder_of_an_archive(tmp_path: Path) -> None:
    """Protects a folder that was packed whole: names in the table count from its own folder."""
    from image_sources import write_zip

    listed = json.dumps({"labels": [["a.png", "x"], ["in/b.jpg", "y"]]}).encode()
    packed = {f"set/{name}": content for name, content in {**FILES, "dataset.json": listed}.items()}
    source = ArchiveConfig(path=str(write_zip(tmp_path / "set.zip", packed))).source()
    assert contents(source) == {"set/a.png": "x", "set/in/b.jpg": "y"}
