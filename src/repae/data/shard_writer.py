"""Shards written one by one, each whole or not at all, and the manifest that completes a folder of them."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from repae.config import UserError, check, write_atomic
from repae.data.sharded import (
    HEADER_BYTES,
    LABEL_FIELD,
    LABELS,
    MANIFEST,
    PLAN,
    SHARDS,
    FieldSpec,
    Manifest,
    Plan,
    Refused,
    ShardInfo,
    read_sidecar,
    shard_file,
    sidecar_file,
)

TEMPORARY = ".tmp-"


class ShardWriter:
    """Writes one shard, in order; within the context nothing of it can be read, after `commit` all of it can.

    ::

        with ShardWriter(folder, plan, 7) as shard:
            shard.add("cat/1.jpg", 0, images=pixels)
            shard.refuse("cat/2.jpg", "the file is empty")
            shard.commit()

    Raises:
        OSError: the disk is full or fails. What was written of this shard is removed; others are as they were.
    """

    def __init__(self, folder: Path, plan: Plan, number: int) -> None:
        self.folder = folder
        self.number = number
        self._files = [_FieldFile(folder, number, field) for field in plan.fields]
        self._labels: list[int] = []
        self._names: list[str] = []
        self._refused: list[dict[str, str]] = []

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.discard()

    def add(self, name: str, label: int, **arrays: np.ndarray) -> None:
        """The next item: an array for each field, in the field's type and shape."""
        assert arrays.keys() == {file.field.name for file in self._files}, arrays.keys()
        for file in self._files:
            file.append(arrays[file.field.name])
        self._names.append(name)
        self._labels.append(label)

    def refuse(self, name: str, reason: str) -> None:
        """An item that cannot be made."""
        self._refused.append({"name": name, "reason": reason})

    def commit(self) -> None:
        """Completes the shard: files first, each safely on the disk, then the sidecar that makes them count."""
        count = len(self._labels)
        labels = _FieldFile(self.folder, self.number, LABEL_FIELD)
        try:
            for label in self._labels:
                labels.append(np.array(label, dtype=np.int64))
            files = {file.name: file.finish(count) for file in (*self._files, labels)}
        finally:
            labels.discard()
        sidecar = {"count": count, "files": files, "refused": self._refused, "names": self._names}
        write_atomic(self.folder / sidecar_file(self.number), json.dumps(sidecar, ensure_ascii=False, indent=0) + "\n")


class _FieldFile:
    """One array that grows; its header is written last, when the number of items is known."""

    def __init__(self, folder: Path, number: int, field: FieldSpec) -> None:
        self.field = field
        self.target = folder / shard_file(number, field.name)
        self.name = self.target.name
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = self.target.with_name(f"{TEMPORARY}{self.name}-{secrets.token_hex(4)}")
        self._file = self._temporary.open("xb")
        self._file.write(bytes(HEADER_BYTES))
        self._digest = hashlib.sha256()

    def append(self, item: np.ndarray) -> None:
        assert item.shape == self.field.shape and item.dtype == self.field.numpy, (self.field, item.shape, item.dtype)
        data = np.ascontiguousarray(item).data
        self._file.write(data)
        self._digest.update(data)

    def finish(self, count: int) -> tuple[int, str]:
        """Size in bytes, and SHA-256 of the items (what follows the header)."""
        self._file.seek(0)
        self._file.write(self.field.header(count))
        self._file.flush()
        os.fsync(self._file.fileno())
        size = os.fstat(self._file.fileno()).st_size
        self._file.close()
        self._temporary.replace(self.target)
        return size, self._digest.hexdigest()

    def discard(self) -> None:
        """Removes what was not finished."""
        with suppress(OSError):  # closing writes what is buffered, and a full disk refuses that too
            self._file.close()
        self._temporary.unlink(missing_ok=True)


def begin(folder: Path, plan: Plan) -> None:
    """Starts a folder of shards, or goes on in one of the same plan.

    Raises:
        UserError: the folder holds another plan, or something else.
    """
    path = folder / PLAN
    if path.exists():
        before, now = read_plan(folder).model_dump(mode="json"), plan.model_dump(mode="json")
        differing = [name for name in now if before[name] != now[name] and name != "about"]
        differing += [name for name in {**before["about"], **now["about"]} if _of(before, name) != _of(now, name)]
        if differing:
            shown = "; ".join(
                f"{name} was {_shown(before, name)}, is now {_shown(now, name)}" for name in differing[:4]
            )
            raise UserError(
                f"{folder} was begun with other settings: {shown}. Give another --out, or delete that folder, or give "
                "the former settings to go on with it"
            )
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and was not begun by this command; give a new folder with --out")
    (folder / SHARDS).mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(plan.model_dump(mode="json"), ensure_ascii=False, indent=1) + "\n")


def read_plan(folder: Path) -> Plan:
    """The plan of a folder that was begun.

    Raises:
        UserError: it cannot be read.
    """
    path = folder / PLAN
    try:
        return check(Plan, json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}; delete the folder and make it again") from None


def missing_shards(folder: Path, plan: Plan) -> list[int]:
    """Numbers of the shards that are not complete."""
    return [number for number in range(plan.shards) if not (folder / sidecar_file(number)).is_file()]


def finish(folder: Path, plan: Plan, classes: int) -> Manifest:
    """Writes the manifest of a folder whose shards are all there; whoever does it writes the same bytes."""
    counts = np.zeros(classes, dtype=np.int64)
    shards, refused = [], []
    for number in range(plan.shards):
        sidecar = read_sidecar(folder, number)
        labels = np.load(folder / shard_file(number, LABELS))
        counts += np.bincount(labels, minlength=classes)
        shards.append(ShardInfo(count=sidecar["count"], files=sidecar["files"]))
        refused += [Refused(**item) for item in sidecar["refused"]]
    manifest = Manifest.sealed(
        plan=plan,
        count=sum(shard.count for shard in shards),
        class_counts=tuple(counts.tolist()),
        refused=tuple(refused),
        shards=tuple(shards),
    )
    text = json.dumps(manifest.model_dump(mode="json"), ensure_ascii=False, indent=1) + "\n"
    write_atomic(folder / MANIFEST, text)
    return manifest


def _of(plan: dict[str, Any], name: str) -> Any:
    return plan["about"].get(name)


def _shown(plan: dict[str, Any], name: str) -> str:
    text = repr(plan[name] if name in plan else _of(plan, name))
    return text if len(text) <= 60 else f"{text[:57]}..."
