"""Many equal items in a folder of plain ``.npy`` files: prepared images, cached latents, teacher tokens.

::

    DIR/plan.json                     what the folder is to hold; equal plans give equal bytes
    DIR/shards/000007.images.npy      one array [items, *shape] for each field
    DIR/shards/000007.labels.npy      int64
    DIR/shards/000007.json            names, refused items, checksums; written last: without it the shard does not count
    DIR/labels.npy                    the labels of all shards, one after the other
    DIR/manifest.json                 all of that summed up, with a seal; written when the last shard is there

Anybody can open the arrays with ``numpy.load(file, mmap_mode="r")`` and check them with ``sha256sum``. bfloat16, which
numpy lacks, is stored as uint16.
"""

from __future__ import annotations

import json
import math
import os
from collections import OrderedDict
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int64
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from repae.config import Config, UserError, check, json_digest
from repae.runtime.file_store import FileStore, LocalStore

PLAN, MANIFEST, SHARDS = "plan.json", "manifest.json", "shards"
LABELS = "labels"
ALL_LABELS = "labels.npy"
MADE_BY = {"images": "repae prepare", "latents": "repae cache"}
HEADER_BYTES = 128
OPEN_FILES = 64
"""So many files a process keeps open at most; the least recently used is closed first."""

_NUMPY = {"uint8": "|u1", "int64": "<i8", "float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}


class FieldSpec(Config):
    """One array of the items: its name, its type, and the shape of an item."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    dtype: Literal["uint8", "int64", "float32", "float16", "bfloat16"]
    shape: tuple[PositiveInt, ...]

    @property
    def numpy(self) -> np.dtype[Any]:
        return np.dtype(_NUMPY[self.dtype])

    @property
    def item_bytes(self) -> int:
        return math.prod(self.shape) * self.numpy.itemsize

    def header(self, count: int) -> bytes:
        """The first bytes of a ``.npy`` file of ``count`` items, always equally many."""
        shape = (count, *self.shape)
        text = f"{{'descr': '{self.numpy.str}', 'fortran_order': False, 'shape': {shape}, }}"
        body = text.ljust(HEADER_BYTES - 11) + "\n"
        assert len(body) == HEADER_BYTES - 10, f"too many dimensions: {shape}"
        return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body.encode("ascii")


LABEL_FIELD = FieldSpec(name=LABELS, dtype="int64", shape=())


class ShardPlan(Config):
    """What a folder of shards is to hold.

    Attributes:
        kind: what the items are.
        count: of items to be made, those that will turn out to be unreadable included.
        per_shard: consecutive items of the source that go into one shard.
        fields: the arrays, labels apart.
        about: JSON that belongs to the identity: where the items come from and how they are made. Its "where" alone is
            only said, and may differ between the machines that work on one folder.
    """

    schema_version: Literal[1] = 1
    kind: Literal["images", "latents"]
    count: PositiveInt
    per_shard: PositiveInt
    fields: tuple[FieldSpec, ...]
    about: dict[str, Any]

    @property
    def shards(self) -> int:
        return math.ceil(self.count / self.per_shard)

    def span(self, number: int) -> range:
        return range(number * self.per_shard, min(self.count, (number + 1) * self.per_shard))


class ShardInfo(Config):
    """What a manifest says of one shard: items in it, and size and SHA-256 of each of its files."""

    count: NonNegativeInt
    files: dict[str, tuple[int, str]]


class Refused(Config):
    name: str
    reason: str


class Manifest(Config):
    """Everything that a finished folder holds.

    Attributes:
        plan: what was asked for.
        count: items that are there.
        class_counts: how many items each label has, from label 0 on.
        tally: what else was counted while the items were made, by name.
        refused: items that are not there, in order, with the reason.
        labels: size and SHA-256 of the file of all labels.
        shards: one entry for each.
        seal: SHA-256 over all the rest.
    """

    plan: ShardPlan
    count: NonNegativeInt
    class_counts: tuple[NonNegativeInt, ...]
    tally: dict[str, NonNegativeInt]
    refused: tuple[Refused, ...]
    labels: tuple[int, str]
    shards: tuple[ShardInfo, ...]
    seal: str

    @classmethod
    def sealed(cls, **parts: Any) -> Manifest:
        unsealed = cls(**parts, seal="")
        return unsealed.replace(seal=unsealed.seal_of_content())

    def seal_of_content(self) -> str:
        return json_digest(self.model_dump(mode="json", exclude={"seal"}))


def shard_file(number: int, field: str) -> str:
    return f"{SHARDS}/{number:06d}.{field}.npy"


def sidecar_file(number: int) -> str:
    return f"{SHARDS}/{number:06d}.json"


def read_manifest(folder: str | Path | FileStore, kind: Literal["images", "latents"]) -> Manifest:
    """The manifest of a finished folder."""
    store = folder if isinstance(folder, FileStore) else LocalStore(folder)
    command, where = MADE_BY[kind], store.name(MANIFEST)
    try:
        data = json.loads(store.read(MANIFEST))
    except FileNotFoundError:
        if store.has(PLAN):
            raise UserError(
                f"{store.where} is not finished: it has a {PLAN} but no {MANIFEST}; run the `{command}` command that "
                "began it again, it goes on where it stopped"
            ) from None
        raise UserError(
            f"{store.where} holds no {kind}: there is no {MANIFEST}; give a folder made by `{command}`"
        ) from None
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"{where} cannot be read: {error}; make the folder again with `{command}`") from None
    manifest = check(Manifest, data, where)
    if manifest.plan.kind != kind:
        made_by = MADE_BY[manifest.plan.kind]
        raise UserError(
            f"{store.where} holds {manifest.plan.kind}, made by `{made_by}`, not {kind}; give a folder made by "
            f"`{command}`"
        )
    if manifest.seal_of_content() != manifest.seal:
        raise UserError(f"{where} has been altered: its seal does not fit; restore it, or run `{command}` again")
    return manifest


class ShardFolder:
    """A finished folder of shards, read by item number.

    Files are opened in the process that reads them, a few at a time; nothing open is pickled. A file that is shorter
    than the manifest says is refused when it is opened, so that no item is ever read from beyond its end.
    """

    def __init__(self, folder: str | Path | FileStore, kind: Literal["images", "latents"]) -> None:
        self.store = folder if isinstance(folder, FileStore) else LocalStore(folder)
        self.manifest = read_manifest(self.store, kind)
        self.plan = self.manifest.plan
        self.fields = {field.name: field for field in (*self.plan.fields, LABEL_FIELD)}
        self.starts = np.cumsum([0, *(shard.count for shard in self.manifest.shards)], dtype=np.int64)
        self._open: OrderedDict[str, FileIO] = OrderedDict()
        self._process = os.getpid()

    def __len__(self) -> int:
        return self.manifest.count

    def __getstate__(self) -> dict[str, Any]:
        # Open files cannot be pickled, and a worker must not share their positions.
        return {**self.__dict__, "_open": OrderedDict()}

    def labels(self) -> Int64[np.ndarray, " n"]:
        """The class of every item, mapped: it takes no memory of its own, and the machine's processes share it."""
        if not len(self):
            return np.zeros(0, np.int64)
        with self._checked(ALL_LABELS, *self.manifest.labels) as file:
            return np.memmap(file, LABEL_FIELD.numpy, "c", HEADER_BYTES, (len(self),))

    def rows(self, name: str, indices: Sequence[int] | Int64[np.ndarray, " b"]) -> Tensor:
        """Items ``[b, *shape]`` of a field at these numbers, each 0..len-1."""
        field = self.fields[name]
        numbers = np.asarray(indices, dtype=np.int64)
        assert numbers.size == 0 or (numbers.min() >= 0 and numbers.max() < len(self)), "an item outside the folder"
        shards = np.searchsorted(self.starts, numbers, side="right") - 1
        rows = numbers - self.starts[shards]
        out = np.empty((len(numbers), *field.shape), field.numpy)
        flat = out.reshape(len(numbers), -1).view(np.uint8) if numbers.size else out
        for place, (shard, row) in enumerate(zip(shards.tolist(), rows.tolist(), strict=True)):
            self._read(shard, field, row, flat[place])
        return _as_tensor(out, field)

    def check_sizes(self) -> None:
        """Refuses now a folder with a file that is missing or has not the size that the manifest says."""
        for shard in self.manifest.shards:
            for name, (size, digest) in shard.files.items():
                self._checked(f"{SHARDS}/{name}", size, digest).close()

    def names(self, number: int) -> list[str]:
        return json.loads(self.store.read(sidecar_file(number)))["names"]

    def _read(self, shard: int, field: FieldSpec, row: int, out: np.ndarray) -> None:
        name = shard_file(shard, field.name)
        file = self._file(shard, name)
        try:
            file.seek(HEADER_BYTES + row * field.item_bytes)
            count = file.readinto(out.data)
        except OSError as error:
            raise UserError(f"{self.store.name(name)} cannot be read: {error.strerror}; this is the machine") from error
        if count != out.nbytes:
            raise damaged(self.store, name, "it ends too early")

    def _file(self, shard: int, name: str) -> FileIO:
        if self._process != os.getpid():  # a forked worker would share the position of its parent's files
            self._open, self._process = OrderedDict(), os.getpid()
        file = self._open.get(name)
        if file is not None:
            self._open.move_to_end(name)
            return file
        file = self._checked(name, *self.manifest.shards[shard].files[name.rpartition("/")[2]])
        self._open[name] = file
        if len(self._open) > OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        return file

    def _checked(self, name: str, expected: int, digest: str) -> FileIO:
        """A file, opened after a look at its size."""
        try:
            file = self.store.open(name, expected, digest)
            size = os.fstat(file.fileno()).st_size
        except OSError as error:
            raise damaged(self.store, name, error.strerror or str(error) or "it cannot be opened") from error
        if size != expected:
            file.close()
            raise damaged(self.store, name, f"it has {size:,} bytes instead of {expected:,}")
        return file


def damaged(store: FileStore, name: str, what: str) -> UserError:
    delete = f"delete {sidecar_file(int(name[7:13]))} and " if name.startswith(SHARDS) else ""
    return UserError(
        f"{store.name(name)} is damaged: {what}; {delete}run the command that made the folder again: it makes "
        f"{'this shard' if delete else 'this file'} anew and leaves the others"
    )


def _as_tensor(array: np.ndarray, field: FieldSpec) -> Tensor:
    if field.dtype == "bfloat16":
        # By way of int16, a type that both libraries know: only the bits count.
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
