"""WebDataset shards: tar archives of samples, local or in object storage, with any sample within reach."""

from __future__ import annotations

import glob
import re
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from repae.config import UserError
from repae.config.files import cache_folder, readable
from repae.data.image_source import Digest, ImageSource
from repae.data.images import ImagesConfig
from repae.data.sources.classes import MISSING, Classes, classify, read_class_names
from repae.data.sources.labelling import ALL
from repae.data.sources.names import Names, join
from repae.data.sources.ranges import RangeFile
from repae.data.sources.shard_index import ShardIndex, shard_index
from repae.data.sources.tarred import read_whole
from repae.runtime.remote import UnreachableError, ask, is_url

OPEN_SHARDS = 64
"""So many shards a process keeps open at most; the least recently used is closed first."""
INDEXED_AT_ONCE = 8
"""So many remote shards are indexed at a time."""
BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
MOST_CAPTIONS = 1000
"""So many different texts, if they are more than a tenth of the images, are captions and no classes."""


class WebDatasetConfig(ImagesConfig):
    """WebDataset shards: uncompressed tars in which the files of a sample have one name, such as 0007.jpg and 0007.cls.

    The class of a sample is its `.cls`; where the shards have none, a field of its `.json`; else its `.txt`.

    Attributes:
        path: a tar, a folder of tars, or a pattern: `shards/{000..012}.tar`, `shards/*.tar`; local, or a URL that
            fsspec understands, such as `https://host/{000..012}.tar`.
        label: the field of a sample's `.json` that is its class.
        classes: a text file with one class name a line, for classes that are numbers from 0 on.
        cache: where indices of the shards are kept; by default in the user's cache folder.
    """

    kind: Literal["webdataset"] = "webdataset"
    label: str = "label"
    classes: str | None = None
    cache: str | None = None

    def source(self) -> WebDatasetSource:
        """The shards; each is read through once to index it, and never again."""
        paths = shard_paths(self.path)
        if is_url(paths[0]):
            with ThreadPoolExecutor(INDEXED_AT_ONCE) as pool:
                opened = list(pool.map(self._indexed, paths))
        else:
            opened = [self._indexed(path) for path in paths]
        return WebDatasetSource(opened, self)

    def missing(self) -> Iterator[str]:
        try:
            paths = [path for path in shard_paths(self.path) if not is_url(path)]
        except UserError as error:
            yield f"data: {error}"
            return
        if absent := [path for path in paths if not Path(path).is_file()]:
            yield f"data: there is no {join(absent)}; put the shards there, or say where they are with --data PATH"

    def _indexed(self, path: str) -> tuple[RangeFile, ShardIndex]:
        shard = RangeFile(path)
        return shard, shard_index(shard, self.label, cache_folder("shards", self.cache))


class WebDatasetSource(ImageSource):
    """The images of some shards, in the order of the shards and sorted by name inside each."""

    def __init__(self, opened: list[tuple[RangeFile, ShardIndex]], config: WebDatasetConfig) -> None:
        self.where = readable(config.path)
        self.shards = [shard for shard, _ in opened]
        indices = [index for _, index in opened]
        if not any(len(index.starts) for index in indices):
            raise UserError(
                f"'{self.where}' holds no samples with a jpg, png or webp image; if it is an archive of class folders: "
                "--data.kind archive"
            )
        classes, kept = _classes(indices, self.where, config)
        self.class_names, self.labels = classes.names, classes.labels[kept]
        notes = list(chain.from_iterable(index.notes for index in indices))
        self.notes = (*notes[:5], *([f"and {len(notes) - 5} more shards with such samples"] if notes[5:] else []))
        self.notes += classes.notes
        self.names = Names.joined([index.names for index in indices])
        self.places = kept.nonzero()[0]
        self.ends = np.cumsum([len(index.starts) for index in indices])
        self.starts = np.concatenate([index.starts for index in indices])
        self.sizes = np.concatenate([index.sizes for index in indices])
        self._recent: OrderedDict[int, None] = OrderedDict()

    def name(self, index: int) -> str:
        """The number of the shard, from 0 on, and the image's name inside it."""
        place, number = self._place(index)
        return f"{number:05d}/{self.names[place]}"

    def read(self, index: int) -> bytes:
        place, number = self._place(index)
        self._recent[number] = None
        self._recent.move_to_end(number)
        if len(self._recent) > OPEN_SHARDS:
            self.shards[self._recent.popitem(last=False)[0]].close()
        return read_whole(self.shards[number], int(self.starts[place]), int(self.sizes[place]))

    def _digest(self) -> Digest:
        digest = Digest("webdataset", *self.class_names)
        for index, (size, label) in enumerate(zip(self.sizes[self.places].tolist(), self.labels.tolist())):
            digest.add(self.name(index), size, label)
        return digest

    def _place(self, index: int) -> tuple[int, int]:
        """Where an image stands among those of all shards, and the number of its shard."""
        place = int(self.places[index])
        return place, int(np.searchsorted(self.ends, place, side="right"))


def shard_paths(path: str) -> list[str]:
    """The shards that a path names, in order."""
    here = Path(path).expanduser()
    if is_url(path):
        found = _listed(f"{path}*.tar") if path.endswith("/") else expand_braces(path)
        if "*" in path:
            found = list(chain.from_iterable(map(_listed, found)))
    elif here.is_dir():
        found = [str(file) for file in sorted(here.glob("*.tar"))]
    elif here.is_file():
        return [str(here)]
    else:
        found = [file for pattern in expand_braces(str(here)) for file in _matching(pattern)]
    if not found:
        raise UserError(
            f"no shards at '{readable(path)}'; expected a tar, a folder of tars, or a pattern such as "
            "'shards/{000..012}.tar' or 'shards/*.tar', in quotes"
        )
    return found


def _listed(pattern: str) -> list[str]:
    """The URLs that a pattern with `*` matches, sorted."""
    try:
        return ask(pattern, lambda files, name: sorted(map(files.unstrip_protocol, files.glob(name))))
    except (FileNotFoundError, UnreachableError) as error:
        raise UserError(
            f"'{readable(pattern)}' cannot be listed: {error.strerror or error}; write the names out, as in "
            "{000..123}.tar"
        ) from None


def expand_braces(pattern: str) -> list[str]:
    """All that `{000..012}` and `{train,val}` stand for, as a shell has it."""
    parts = BRACES.split(pattern)
    choices: list[list[str]] = [[parts[0]]]
    for first, last, listed, rest in zip(parts[1::4], parts[2::4], parts[3::4], parts[4::4]):
        if listed is not None:
            choices.append(listed.split(","))
        else:
            width = max(len(first), len(last)) if first.startswith("0") or last.startswith("0") else 0
            choices.append([f"{number:0{width}d}" for number in range(int(first), int(last) + 1)])
        choices.append([rest])
    return ["".join(choice) for choice in product(*choices)]


def _matching(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]  # noqa: PTH207 - a whole path


def _classes(indices: list[ShardIndex], where: str, config: WebDatasetConfig) -> tuple[Classes, np.ndarray]:
    """The classes of all shards, and which samples have one."""
    values: list[Any] = list(chain.from_iterable(index.values for index in indices))
    if config.labels == "none":
        return Classes((ALL,), np.zeros(len(values), dtype=np.int64), ()), np.ones(len(values), dtype=bool)
    found_in = {index.found_in for index in indices if len(index.starts)}
    if found_in == {""}:
        raise UserError(
            f"the samples of '{where}' have no .cls, .json or .txt, and so no class; train without classes: "
            "--data.labels none"
        )
    names = Names.joined([index.names for index in indices])
    if found_in & {"json"} and all(value is None for value in values):
        raise UserError(
            f"the .json files of '{where}' have no field '{config.label}'; name the one with the class by "
            "--data.label, or train without classes: --data.labels none"
        )
    classes = classify(values, names.__getitem__, f"'{where}'")
    if "txt" in found_in and len(classes.names) > max(MOST_CAPTIONS, len(values) // 10):
        raise UserError(
            f"the .txt files of '{where}' hold {len(classes.names):,} different texts: captions, it seems, and no "
            "classes; train without classes: --data.labels none"
        )
    if config.classes is not None:
        classes = read_class_names(config.classes, classes, f"'{where}'")
    return classes, classes.labels != MISSING
