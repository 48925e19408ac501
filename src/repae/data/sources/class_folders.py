"""Classes as folders: the class of an image is the first folder that it lies in."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple

import numpy as np

from repae.config import UserError
from repae.config.files import readable
from repae.data.sources.names import OTHER_IMAGES, SUFFIXES, count, describe, hidden, join, suffix
from repae.data.sources.storage import LabelledFiles, Storage

SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
EXPECTED = "expected one folder of JPEG, PNG or WebP images for each class, as {0}/cat/1.jpg, {0}/dog/2.png"


class _Folder(NamedTuple):
    """What lies in one of the outermost folders: images with their positions, other files, folders inside."""

    images: list[tuple[str, int]]
    others: Counter[str]
    inner: set[str]


def by_folders(storage: Storage, inside: str = "") -> LabelledFiles:
    """The images of class folders, in an order that depends on their names only.

    Classes are the sorted names of the folders, images are sorted by name inside them and may lie deeper. Names that
    start with a dot are ignored, and so are class folders without images (with a note) and files that are no JPEG, PNG
    or WebP by their suffix.

    `inside` is the folder in the storage that holds the class folders, with `/` at its end.
    """
    loose, folders = _sorted_out(storage, inside)
    _check_splits(storage, inside, folders)
    classes = [name for name in sorted(folders) if folders[name].images]
    if not classes:
        raise UserError(_nothing(storage, inside, loose, folders))
    positions = [position for name in classes for _, position in sorted(folders[name].images)]
    labels = np.repeat(np.arange(len(classes)), [len(folders[name].images) for name in classes])
    notes = _notes(storage, inside, loose, folders)
    if len(classes) == 1:
        notes += _single(storage, inside, classes[0], folders[classes[0]])
    return LabelledFiles(np.array(positions), tuple(map(readable, classes)), labels, notes)


def _sorted_out(storage: Storage, inside: str) -> tuple[Counter[str], dict[str, _Folder]]:
    loose: Counter[str] = Counter()
    folders: defaultdict[str, _Folder] = defaultdict(lambda: _Folder([], Counter(), set()))
    for position, name in enumerate(storage.names):
        if not name.startswith(inside) or hidden(name):
            continue
        top, slash, rest = name[len(inside) :].partition("/")
        if not slash:
            loose[suffix(name)] += 1
            continue
        inner, deeper, _ = rest.partition("/")
        if deeper:
            folders[top].inner.add(inner)
        if (kind := suffix(name)) in SUFFIXES:
            folders[top].images.append((name, position))
        else:
            folders[top].others[kind] += 1
    for name in storage.empty if not inside else ():
        folders[name]  # an entry of its own
    return loose, dict(folders)


def _check_splits(storage: Storage, inside: str, folders: dict[str, _Folder]) -> None:
    """Refuse folders train, val, ... whose own folders are the classes: the splits would become the classes."""
    if not folders or any(name.lower() not in SPLITS or not folder.inner for name, folder in folders.items()):
        return
    split = f"{inside}{'train' if 'train' in folders else min(folders)}"
    remedy = f"the path: '{storage.where}/{split}'" if storage.noun == "folder" else f"--data.inside {split}"
    raise UserError(
        f"data {storage.noun} '{storage.where}' holds {join(sorted(folders))}, which look like splits with the classes "
        f"inside and not like classes; give one of them as {remedy}"
    )


def _nothing(storage: Storage, inside: str, loose: Counter[str], folders: dict[str, _Folder]) -> str:
    shown = _shown(storage, inside)
    expected = EXPECTED.format(shown)
    what = f"data {storage.noun} '{shown}'"
    if flat := _images(loose):
        return (
            f"{what} holds {count(flat, 'image')} but no class subfolder with images; {expected}; move the images of "
            "each class into a subfolder named after the class, or list them in a dataset.json or labels.csv beside "
            "them, or train without classes: --data.labels none"
        )
    kinds = sum((folder.others for folder in folders.values()), loose)
    if kinds:
        convert = "convert them to PNG" if set(kinds) & OTHER_IMAGES else "correct the path or put images there"
        return f"{what} holds no images, only {describe(kinds)}; {expected}; {convert}"
    empty = f"holds only empty folders ({join(sorted(folders))})" if folders else "is empty"
    return f"{what} {empty}; {expected}; put the images there or correct the path"


def _notes(storage: Storage, inside: str, loose: Counter[str], folders: dict[str, _Folder]) -> tuple[str, ...]:
    """What was left out although somebody may miss it."""
    shown, notes = _shown(storage, inside), []
    if flat := _images(loose):
        notes.append(f"{count(flat, 'image')} directly in '{shown}', in no class subfolder, left out")
    if empty := [name for name in sorted(folders) if not folders[name].images]:
        notes.append(f"without images and so no class: {join(empty)} in '{shown}'")
    others = sum((folder.others for folder in folders.values()), Counter[str]())
    images = Counter({kind: many for kind, many in others.items() if kind in OTHER_IMAGES})
    if images:
        notes.append(f"{describe(images)} in '{shown}' left out: only JPEG, PNG and WebP are read")
    return tuple(notes)


def _single(storage: Storage, inside: str, name: str, folder: _Folder) -> tuple[str, ...]:
    """A note where the only class looks like a folder of classes."""
    own = f"{inside}{name}/"
    if len(folder.inner) < 2 or any("/" not in image[len(own) :] for image, _ in folder.images):
        return ()
    inner = f"{_shown(storage, inside)}/{readable(name)}"
    remedy = f"'{inner}'" if storage.noun == "folder" else f"--data.inside {readable(own[:-1])}"
    return (
        f"'{inner}' is the only class and holds {len(folder.inner)} folders; if those are the classes, give {remedy}",
    )


def _images(kinds: Counter[str]) -> int:
    return sum(many for kind, many in kinds.items() if kind in SUFFIXES)


def _shown(storage: Storage, inside: str) -> str:
    return f"{storage.where}/{readable(inside[:-1])}" if inside else storage.where


def folder_of_classes(storage: Storage) -> str:
    """The one folder, with `/` at its end, in which all the class folders of an archive lie; "" where there is none.

    An archive of a folder has it, such as `imagenet/n01440764/1.jpg`. It is no class itself if it holds two folders or
    more and no image directly.
    """
    images = [name for name in storage.names if suffix(name) in SUFFIXES and not hidden(name)]
    top, slash, _ = images[0].partition("/") if images else ("", "", "")
    if not slash or not all(name.startswith(f"{top}/") for name in images):
        return ""
    inner = {name[len(top) + 1 :].rpartition("/")[0].partition("/")[0] for name in images}
    return f"{top}/" if len(inner) >= 2 and "" not in inner else ""
