"""Shards written one by one, each whole or not at all, and the manifest that completes a folder of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from repae.config import UserError, check, write_atomic
from repae.config.errors import show
from repae.config.files import Unfinished, readable, sync
from repae.data.shard_folder import (
    ALL_LABELS,
    HEADER_BYTES,
    LABEL_FIELD,
    LABELS,
    MANIFEST,
    PLAN,
    SHARDS,
    FieldSpec,
    Manifest,
    Refused,
    ShardInfo,
    ShardPlan,
    shard_file,
    sidecar_file,
)
from repae.runtime.digest import sha256_of


class ShardWriter:
    """Writes one shard, in order; within the context nothing of it can be read, after `commit` all of it can.

    ::

        with ShardWriter(folder, plan, 7) as shard:
            shard.add("cat/1.jpg", 0, images=pixels)
            shard.refuse("cat/2.jpg", "the file is empty")
            shard.commit()

    Args:
        scratch: where unfinished files stand, on the same disk; what a killed process left there may be removed by
            whoever owns it. By default hidden files among the shards.

    Raises:
        OSError: the disk is full or fails. What was written of this shard is removed; others are as they were.
    """

    def __init__(self, folder: Path, plan: ShardPlan, number: int, scratch: Path | None = None) -> None:
        self.folder, self.number = folder, number
        self._scratch = scratch or folder / SHARDS
        self._labels: list[int] = []
        self._names: list[str] = []
        self._refused: list[dict[str, str]] = []
        self._tally: Counter[str] = Counter()
        self._expected = len(plan.span(number))
        self._files: list[_FieldFile] = []
        try:
            for field in plan.fields:
                self._files.append(self._file(field))
        except OSError:
            self._discard()
            raise

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._discard()

    def add(self, name: str, label: int, **arrays: np.ndarray) -> None:
        """The next item: an array for each field, in the field's type and shape."""
        assert arrays.keys() == {file.field.name for file in self._files}, arrays.keys()
        for file in self._files:
            file.append(arrays[file.field.name])
        self._names.append(name)
        self._labels.append(label)

    def refuse(self, name: str, reason: str) -> None:
        self._refused.append({"name": readable(name), "reason": readable(reason)})

    def count(self, what: str) -> None:
        """One more of what the manifest's tally tells of."""
        self._tally[what] += 1

    def commit(self) -> None:
        """Completes the shard: files first, each safely on the disk, then the sidecar that makes them count."""
        labels = self._file(LABEL_FIELD)
        try:
            labels.append_all(np.array(self._labels, dtype=np.int64))
            files = {file.target.name: file.finish(len(self._labels)) for file in (*self._files, labels)}
        finally:
            labels.discard()
        sidecar = {
            "count": len(self._labels),
            "files": files,
            "tally": dict(sorted(self._tally.items())),
            "refused": self._refused,
            "names": self._names,
        }
        # The folder too: a file that is on the disk may lose its name in a power cut.
        sync(self.folder / SHARDS)
        write_atomic(self.folder / sidecar_file(self.number), _json(sidecar, indent=0), self._scratch)

    def _file(self, field: FieldSpec) -> _FieldFile:
        return _FieldFile(self.folder / shard_file(self.number, field.name), field, self._expected, self._scratch)

    def _discard(self) -> None:
        for file in self._files:
            file.discard()


class _FieldFile:
    """One array that grows. Its header is written last, for only then the number of items is certain."""

    def __init__(self, target: Path, field: FieldSpec, expected: int, scratch: Path) -> None:
        self.field, self.target, self.expected = field, target, expected
        self._unfinished = Unfinished(target, scratch)
        self._file = self._unfinished.path.open("xb")
        self._file.write(bytes(HEADER_BYTES))
        self._digest = hashlib.sha256(field.header(expected))

    def append(self, item: np.ndarray) -> None:
        assert item.shape == self.field.shape and item.dtype == self.field.numpy, (self.field, item.shape, item.dtype)
        self.append_all(item[None])

    def append_all(self, items: np.ndarray) -> None:
        """Several items, of which the caller knows that they fit."""
        data = np.ascontiguousarray(items).data
        self._file.write(data)
        self._digest.update(data)

    def finish(self, count: int) -> tuple[int, str]:
        """Size in bytes and SHA-256 of the file, which is then in its place."""
        self._file.seek(0)
        self._file.write(self.field.header(count))
        self._file.flush()
        # Content before name: renamed first, a power cut could leave a whole name with an empty file.
        os.fsync(self._file.fileno())
        size = os.fstat(self._file.fileno()).st_size
        self._file.close()
        # The running digest began with the header of the expected count, which refused images make wrong.
        digest = self._digest.hexdigest() if count == self.expected else sha256_of(self._unfinished.path)
        self._unfinished.finish()
        return size, digest

    def discard(self) -> None:
        with suppress(OSError):  # closing writes what is buffered, and a full disk refuses that too
            self._file.close()
        self._unfinished.discard()


def begin(folder: Path, plan: ShardPlan, scratch: Path | None = None) -> ShardPlan:
    """Starts a folder of shards, or goes on in one of the same plan.

    Returns:
        The folder's plan: the given one, or the equal one with which it was begun.
    """
    path = folder / PLAN
    if path.exists():
        begun = read_plan(folder)
        before, now = _facts(begun), _facts(plan)
        differing = [name for name in before | now if name != "where" and before.get(name) != now.get(name)]
        if differing:
            # The arrays follow from the rest: on their own they are named only where nothing else differs.
            named = [name for name in differing if name != "fields"] or differing
            shown = "; ".join(
                f"{name} was {show(before.get(name))}, is now {show(now.get(name))}" for name in named[:4]
            )
            raise UserError(
                f"{folder} was begun with other settings: {shown}. Give another --out, or delete that folder, or give "
                "the former settings to go on with it"
            )
        return begun
    if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise UserError(f"{folder} is not empty and was not begun by this command; give a new folder with --out")
    (folder / SHARDS).mkdir(parents=True, exist_ok=True)
    write_atomic(path, _json(plan.model_dump(mode="json")), scratch)
    return plan


def read_plan(folder: Path) -> ShardPlan:
    """The plan of a folder that was begun."""
    path = folder / PLAN
    try:
        return check(ShardPlan, json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}; delete the folder and make it again") from None


def missing_shards(folder: Path, plan: ShardPlan, numbers: range | None = None) -> list[int]:
    """Those of the shards with these numbers, by default of all, that are not complete: a file lacks or is cut."""
    numbers = range(plan.shards) if numbers is None else numbers
    return [number for number in numbers if not _is_complete(folder, number)]


def finish(folder: Path, plan: ShardPlan, classes: int, scratch: Path | None = None) -> Manifest:
    """Writes the labels and the manifest of a folder whose shards are all there; always the same bytes."""
    scratch = scratch or folder
    counts = np.zeros(classes, dtype=np.int64)
    tally: Counter[str] = Counter()
    shards, refused = [], []
    for number in range(plan.shards):
        sidecar = _sidecar(folder, number)
        shards.append(ShardInfo(count=sidecar["count"], files=sidecar["files"]))
        refused += [Refused(**item) for item in sidecar["refused"]]
        tally.update(sidecar["tally"])
    all_labels = _FieldFile(folder / ALL_LABELS, LABEL_FIELD, sum(shard.count for shard in shards), scratch)
    try:
        for number in range(plan.shards):
            labels = np.load(folder / shard_file(number, LABELS))
            counts += np.bincount(labels, minlength=classes)
            all_labels.append_all(labels)
        written = all_labels.finish(all_labels.expected)
    finally:
        all_labels.discard()
    manifest = Manifest.sealed(
        plan=plan,
        count=all_labels.expected,
        class_counts=tuple(counts.tolist()),
        tally=dict(sorted(tally.items())),
        refused=tuple(refused),
        labels=written,
        shards=tuple(shards),
    )
    write_atomic(folder / MANIFEST, _json(manifest.model_dump(mode="json")), scratch)
    return manifest


def _sidecar(folder: Path, number: int) -> dict[str, Any]:
    return json.loads((folder / sidecar_file(number)).read_text(encoding="utf-8"))


def _is_complete(folder: Path, number: int) -> bool:
    try:
        files = _sidecar(folder, number)["files"]
        return all((folder / SHARDS / name).stat().st_size == size for name, (size, _) in files.items())
    except (OSError, ValueError, KeyError):
        return False


def _json(data: Any, indent: int = 1) -> str:
    """JSON that people can read; where a file name is no valid text, its bytes are escaped."""
    text = json.dumps(data, ensure_ascii=False, indent=indent) + "\n"
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(data, indent=indent) + "\n"
    return text


def _facts(plan: ShardPlan) -> dict[str, Any]:
    data = plan.model_dump(mode="json")
    return data.pop("about") | data
