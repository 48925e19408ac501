"""Class folders: what counts as an image and a class, and the words for a folder that cannot be used."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from errors import refused
from hypothesis import given, settings
from hypothesis import strategies as st

from repae.config import UserError
from repae.data import FolderConfig
from repae.data.sources.names import Names

Tree = Callable[..., Path]


class Scan(NamedTuple):
    """What a folder was found to hold."""

    classes: tuple[str, ...]
    names: list[str]
    labels: list[int]
    notes: tuple[str, ...]


def scan(path: str) -> Scan:
    source = FolderConfig(path=path).source()
    names = [source.name(index) for index in range(len(source))]
    return Scan(source.class_names, names, source.labels.tolist(), source.notes)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Makes a folder of empty files and, for names that end in a slash, empty folders."""

    def make(*names: str) -> Path:
        root = tmp_path / "data"
        root.mkdir()
        for name in names:
            path = root / name
            (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
            if not name.endswith("/"):
                path.touch()
        return root

    return make


@settings(max_examples=15)
@given(st.lists(st.binary(min_size=0, max_size=30), max_size=20))
def test_names_are_kept_as_they_are(raw: list[bytes]) -> None:
    """Protects file names in any encoding, and the copies that worker processes get."""
    given_names = [os.fsdecode(name) for name in raw]
    names = pickle.loads(pickle.dumps(Names(given_names)))
    assert len(names) == len(given_names)
    assert [names[i] for i in range(len(names))] == given_names
    with pytest.raises(IndexError):
        names[len(given_names)]


def test_classes_and_images_are_sorted_and_nested_ones_count(tree: Tree) -> None:
    """Protects the order, which decides labels and indices, and images deeper than the class folder."""
    root = tree("dog/b.png", "dog/a.JPG", "cat/x/2.webp", "cat/x/10.jpeg", "cat/w.png", "ant/deep/deeper/1.jpg")
    found = scan(str(root))
    assert found.classes == ("ant", "cat", "dog")
    assert found.names == [
        "ant/deep/deeper/1.jpg", "cat/w.png", "cat/x/10.jpeg", "cat/x/2.webp", "dog/a.JPG", "dog/b.png",
    ]  # fmt: skip
    assert found.labels == [0, 1, 1, 1, 2, 2]
    assert found.notes == ()


def test_hidden_files_and_folders_are_ignored(tree: Tree) -> None:
    """Protects against what systems and archives leave behind."""
    root = tree("cat/1.png", "cat/._1.png", "cat/.cache/2.png", ".git/3.png", "dog/4.png", "dog/notes.txt", ".DS_Store")
    found = scan(str(root))
    assert found.names == ["cat/1.png", "dog/4.png"]
    assert found.notes == ()


def test_what_is_left_out_is_said(tree: Tree) -> None:
    """Protects a user's images from vanishing without a word."""
    root = tree(
        "cat/1.png", "cat/2.tif", "dog/3.png", "dog/4.gif", "dog/5.gif", "6.jpg", "__MACOSX/._1.png", "labels.csv"
    )
    notes = "\n".join(scan(str(root)).notes)
    assert "1 image directly in" in notes
    assert "no class: '__MACOSX'" in notes
    assert "3 files (2 .gif, 1 .tif)" in notes
    assert scan(str(root)).classes == ("cat", "dog")


def test_a_single_class_is_a_class(tree: Tree) -> None:
    """Protects training without classes: one subfolder, one class, nothing to say."""
    found = scan(str(tree("all/1.png", "all/2.png")))
    assert found.classes == ("all",)
    assert found.labels == [0, 0]
    assert found.notes == ()


def test_a_single_class_of_folders_is_pointed_out(tree: Tree) -> None:
    """Protects a user who gave the folder above the one with the classes."""
    (note,) = scan(str(tree("imagenet/n01/1.png", "imagenet/n02/2.png"))).notes
    assert "imagenet' is the only class and holds 2 folders" in note


def test_links_are_followed_but_not_in_circles(tree: Tree, tmp_path: Path) -> None:
    """Protects subsets made of links, and termination."""
    root = tree("cat/1.png", "dog/2.png")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "3.png").touch()
    (root / "eel").symlink_to(elsewhere, target_is_directory=True)
    (root / "cat" / "again").symlink_to(root, target_is_directory=True)
    (root / "cat" / "self").symlink_to(root / "cat", target_is_directory=True)
    found = scan(str(root))
    assert found.classes == ("cat", "dog", "eel")
    assert found.names == ["cat/1.png", "dog/2.png", "eel/3.png"]


@pytest.mark.parametrize(
    "names, facts",
    [
        ((), ["empty", "data/cat/1.jpg", "correct the path"]),
        ((".hidden/1.png", ".DS_Store"), ["empty", "data/cat/1.jpg", "correct the path"]),
        (("cat/", "dog/"), ["only empty folders", "'cat', 'dog'", "data/cat/1.jpg"]),
        (
            ("1.png", "2.jpg"),
            [
                "2 images",
                "no class subfolder",
                "data/cat/1.jpg",
                "move the images",
                "dataset.json",
                "--data.labels none",
            ],
        ),
        (("1.png", "extras/readme.txt"), ["1 image", "no class subfolder", "--data.labels none"]),
        (("a.txt", "b.csv", "c.csv"), ["no images", "3 files", "2 .csv", "1 .txt", "correct the path"]),
        (("cat/1.txt", "dog/2"), ["no images", "2 files", "1 .txt", "1 without suffix"]),
        (("cat/1.tif", "dog/2.tif"), ["no images", "2 files", "2 .tif", "convert them to PNG"]),
        (("train/cat/1.png", "train/dog/2.png", "val/cat/3.png"), ["'train', 'val'", "splits", "data/train"]),
        (("test/cat/1.png", "val/cat/3.png"), ["'test', 'val'", "splits", "data/test"]),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_in_words(tree: Tree, names: tuple[str, ...], facts: list[str]) -> None:
    """Protects the user: one line with what was found, what is expected and what to do."""
    with refused(UserError, *facts) as error:
        scan(str(tree(*names)))
    assert "\n" not in str(error.value)


def test_a_class_may_be_named_like_a_split(tree: Tree) -> None:
    """Protects the check for splits from refusing real classes."""
    assert scan(str(tree("test/1.png", "train/2.png"))).classes == ("test", "train")


def test_a_path_that_is_no_folder_is_refused_in_words(tmp_path: Path) -> None:
    """Protects the user from a wrong path: says which part of it exists; an archive is recognised as a file."""
    with refused(UserError, tmp_path / "no" / "such", "not exist", f"'{tmp_path}'", "correct the path"):
        scan(str(tmp_path / "no" / "such"))
    archive = tmp_path / "images.tar"
    archive.touch()
    with refused(UserError, "a file and no folder", f"--data '{archive}'"):
        scan(str(archive))


def test_a_closed_folder_is_refused_in_words(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects against a data set that is silently smaller because a folder may not be listed."""
    root, listed = tree("cat/1.png", "dog/2.png"), os.scandir

    def closed(folder: Path) -> object:
        if folder.name == "dog":
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(os, "scandir", closed)
    with refused(UserError, "data/dog", "Permission denied", "make it readable"):
        scan(str(root))


def test_the_home_folder_is_understood(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects paths from a YAML file, which no shell has expanded."""
    root = tree("cat/1.png", "dog/2.png")
    monkeypatch.setenv("HOME", str(root.parent))
    assert len(scan("~/data").names) == 2


def test_a_path_that_cannot_be_asked_for_is_refused_in_words() -> None:
    """Protects the user from the system's own errors."""
    with refused(UserError, "x" * 5000, "correct the path"):
        scan("x" * 5000)


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has file names that are no text")
def test_names_that_are_no_text(tree: Tree) -> None:
    """Protects old archives: a Latin-1 name is listed and can be printed."""
    root = tree("cat/1.png")
    try:
        (Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9"))).mkdir()
    except OSError:
        pytest.skip("this file system takes text only")
    (Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9/\xfc.png"))).touch()
    found = scan(str(root))
    assert found.classes == ("caf\N{REPLACEMENT CHARACTER}", "cat")
    assert os.fsencode(found.names[0]) == b"caf\xe9/\xfc.png"
