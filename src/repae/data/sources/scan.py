"""Which images a folder holds, by class; and in which words a folder is refused that holds none."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from repae.config import UserError
from repae.data.source import readable

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"})
OTHER_IMAGES = frozenset({".avif", ".bmp", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".ppm", ".tga", ".tif", ".tiff"})
SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
EXPECTED = (
    "expected a folder with one subfolder of JPEG, PNG or WebP images for each class, as {0}/cat/1.jpg, {0}/dog/2.png"
)


class Names:
    """Many file names in one block of memory: half of what a list takes, and shared by worker processes, which would
    copy a list page by page as they touch its reference counts."""

    def __init__(self, names: Sequence[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self.block = b"".join(encoded)
        self.ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(f"{index} is outside 0..{len(self) - 1}")
        return os.fsdecode(self.block[self.ends[index] : self.ends[index + 1]])


class Scan(NamedTuple):
    """Sorted contents of a folder: class names, file names relative to it, the class of each file, and what a person
    should be told."""

    classes: tuple[str, ...]
    names: Names
    labels: Int64[np.ndarray, " n"]
    notes: tuple[str, ...]


def scan(root: str) -> Scan:
    """List the images of a folder of class subfolders, in an order that depends on their names only.

    The class of an image is the first folder below `root`; it may lie deeper. Names that start with a dot are ignored,
    and so are class folders without images (with a note) and files that are no JPEG, PNG or WebP by their suffix.

    Raises:
        UserError: nothing there to train on; says what was found, what is expected and what to do.
    """
    folder = Path(root).expanduser()
    check_folder(folder)
    loose, subfolders = _list(folder)
    classes, names, labels, empty = [], [], [], []
    other: Counter[str] = Counter()
    check_splits(folder, subfolders)
    for subfolder in subfolders:
        found = sorted(_walk(folder / subfolder, subfolder))
        images = [name for name in found if _suffix(name) in SUFFIXES]
        if len(images) < len(found):
            other.update(_suffix(name) for name in found if _suffix(name) not in SUFFIXES)
        if images:
            labels.append(np.full(len(images), len(classes), dtype=np.int64))
            classes.append(subfolder)
            names.extend(images)
        else:
            empty.append(subfolder)
    if not names:
        raise UserError(_nothing(folder, loose, subfolders, other))
    notes = _notes(folder, loose, empty, other)
    if len(classes) == 1:
        notes += _single(folder, classes[0])
    return Scan(tuple(map(readable, classes)), Names(names), np.concatenate(labels), notes)


def check_folder(folder: Path) -> None:
    """Refuse what is no folder at all.

    Raises:
        UserError: says which.
    """
    shown = readable(folder)
    try:
        if folder.is_dir():
            return
        exists = folder.exists()
    except OSError as error:
        raise UserError(f"data folder '{shown}' cannot be reached: {error.strerror}; correct the path") from error
    if exists:
        raise UserError(
            f"data path '{shown}' is a file; {EXPECTED.format(shown)}; if it is an archive, unpack it first"
        )
    parent = next((readable(p) for p in folder.absolute().parents if p.is_dir()), os.sep)
    raise UserError(
        f"data folder '{shown}' does not exist (of its path, '{parent}' does); {EXPECTED.format(shown)}; "
        "correct the path or put the images there"
    )


def check_splits(folder: Path, subfolders: Sequence[str]) -> None:
    """Refuse a folder of train/, val/, ... whose own subfolders are the classes: the splits would become the classes.

    Raises:
        UserError: names the split to give instead.
    """
    if not subfolders or any(name.lower() not in SPLITS for name in subfolders):
        return
    if all(_list(folder / name)[1] for name in subfolders):
        shown, split = readable(folder), "train" if "train" in subfolders else subfolders[0]
        raise UserError(
            f"data folder '{shown}' holds {_join(subfolders)}, which look like splits with the classes inside and not "
            f"like classes; give one of them as the path: '{shown}/{split}'"
        )


def _list(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the files and of the folders in a folder, hidden ones left out, sorted."""
    try:
        with os.scandir(folder) as entries:
            seen = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(
            f"folder '{readable(folder)}' cannot be listed: {error.strerror}; make it readable or take it away"
        ) from error
    return sorted(name for name, is_dir in seen if not is_dir), sorted(name for name, is_dir in seen if is_dir)


def _walk(folder: Path, relative: str) -> Iterator[str]:
    """Every file below a folder, as a path relative to the data's root; links to a folder above are not followed."""
    files, subfolders = _list(folder)
    yield from (f"{relative}/{name}" for name in files)
    for name in subfolders:
        below = folder / name
        if not (below.is_symlink() and folder.resolve().is_relative_to(below.resolve())):
            yield from _walk(below, f"{relative}/{name}")


def _suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
    return (dot + suffix).lower() if stem else ""


def _nothing(folder: Path, loose: Sequence[str], subfolders: Sequence[str], other: Counter[str]) -> str:
    """Why a folder without usable images is refused."""
    shown = readable(folder)
    expected = EXPECTED.format(shown)
    flat = sum(_suffix(name) in SUFFIXES for name in loose)
    if flat:
        return (
            f"data folder '{shown}' holds {_count(flat, 'image')} but no class subfolder with images; {expected}; "
            "move the images of each class into a subfolder named after the class, or all of them into one, such as "
            f"'{shown}/all', to train without classes"
        )
    kinds = other + Counter(map(_suffix, loose))
    if kinds:
        convert = "convert them to PNG" if set(kinds) & OTHER_IMAGES else "correct the path or put images there"
        return f"data folder '{shown}' holds no images, only {_describe(kinds)}; {expected}; {convert}"
    empty = f"holds only empty folders ({_join(subfolders)})" if subfolders else "is empty"
    return f"data folder '{shown}' {empty}; {expected}; put the images there or correct the path"


def _notes(folder: Path, loose: Sequence[str], empty: Sequence[str], other: Counter[str]) -> tuple[str, ...]:
    """What was left out although somebody may miss it."""
    shown, notes = readable(folder), []
    flat = sum(_suffix(name) in SUFFIXES for name in loose)
    if flat:
        notes.append(f"{_count(flat, 'image')} directly in '{shown}', in no class subfolder, left out")
    if empty:
        notes.append(f"without images and so no class: {_join(empty)} in '{shown}'")
    images = Counter({suffix: count for suffix, count in other.items() if suffix in OTHER_IMAGES})
    if images:
        notes.append(f"{_describe(images)} in '{shown}' left out: only JPEG, PNG and WebP are read")
    return tuple(notes)


def _single(folder: Path, name: str) -> tuple[str, ...]:
    """A note where the only class looks like a folder of classes."""
    files, subfolders = _list(folder / name)
    if len(subfolders) < 2 or any(_suffix(file) in SUFFIXES for file in files):
        return ()
    inner = readable(folder / name)
    return (
        f"'{inner}' is the only class and holds {len(subfolders)} folders; if those are the classes, give '{inner}'",
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _describe(kinds: Counter[str]) -> str:
    """Files by suffix, most frequent first."""
    parts = [f"{count:,} {suffix or 'without suffix'}" for suffix, count in kinds.most_common(5)]
    return f"{_count(kinds.total(), 'file')} ({', '.join(parts)}{', ...' if len(kinds) > 5 else ''})"


def _join(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{readable(name)}'" for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
