"""What a WebDataset shard holds, found out once and kept in a folder of one's own."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from repae.config import UserError, write_atomic
from repae.config.files import readable
from repae.data.sources.names import Names, count, hidden
from repae.data.sources.ranges import RangeFile
from repae.data.sources.tarred import TarMember, members, read_whole

VERSION = 1
IMAGES = ("jpg", "jpeg", "png", "webp")
"""Of several images of one sample the first in this order counts."""
NOTHING = (None, "")

logger = logging.getLogger("repae.data")


class ShardIndex(NamedTuple):
    """The samples of one shard that have an image, sorted by name.

    Attributes:
        names: of the images inside.
        starts: where each begins, in bytes.
        sizes: how long each is, in bytes.
        values: what stands for the class of each.
        found_in: where the classes stand: "cls", "json", "txt", or "" where no sample has one.
        notes: what was left out.
    """

    names: Names
    starts: Int64[np.ndarray, " n"]
    sizes: Int64[np.ndarray, " n"]
    values: list[Any]
    found_in: str
    notes: list[str]


def shard_index(shard: RangeFile, label: str, cache: Path) -> ShardIndex:
    """The index of a shard, from the cache where it is there and belongs to this content of it.

    `label` is the field of a sample's `.json` that is its class. Where the folder `cache` cannot be written, the index
    is made anew each time.
    """
    identity = json.dumps([VERSION, shard.where, shard.size, shard.version, label])
    path = cache / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.idx.npz"
    found = _load(path)
    if found is None:
        found = _index(shard, label)
        try:
            write_atomic(path, _dump(found))
        except OSError as error:
            logger.warning(
                "data: the index of '%s' cannot be kept in '%s': %s; it is made anew each time; see --data.cache",
                shard.where, readable(cache), error.strerror,
            )  # fmt: skip
    return found


def _index(shard: RangeFile, label: str) -> ShardIndex:
    with shard.stream() as stream:
        files = members(stream, shard.where)
        samples: dict[str, dict[str, TarMember]] = {}
        for name, place in files.items():
            if not hidden(name):
                key, kind = split_name(name)
                samples.setdefault(key, {})[kind] = place
        chosen = [
            (f"{key}.{kind}", parts[kind], parts)
            for key, parts in sorted(samples.items())
            for kind in [next((kind for kind in IMAGES if kind in parts), None)]
            if kind is not None
        ]
        found_in = next((kind for kind in ("cls", "json", "txt") if any(kind in parts for *_, parts in chosen)), "")
        values = [_value(shard, key, parts, found_in, label) for key, _, parts in chosen]
    if found_in == "json" and all(value in NOTHING for value in values) and any("txt" in parts for *_, parts in chosen):
        found_in, values = "txt", [_value(shard, key, parts, "txt", label) for key, _, parts in chosen]
    notes = []
    if without := len(samples) - len(chosen):
        notes.append(f"{count(without, 'sample')} of '{shard.where}' without a jpg, png or webp image left out")
    return ShardIndex(
        Names([name for name, *_ in chosen]),
        np.array([place.start for _, place, _ in chosen], dtype=np.int64),
        np.array([place.size for _, place, _ in chosen], dtype=np.int64),
        values,
        found_in,
        notes,
    )


def split_name(name: str) -> tuple[str, str]:
    """The key of a sample and the kind of one of its files, by WebDataset's rule: at the first dot after the folder."""
    folder, slash, base = name.rpartition("/")
    stem, _, kind = base.partition(".")
    return f"{folder}{slash}{stem}", kind.lower()


def _value(shard: RangeFile, name: str, parts: dict[str, TarMember], kind: str, label: str) -> Any:
    """What stands for a sample's class; None where nothing does."""
    if kind not in parts:
        return None
    content = read_whole(shard, *parts[kind])
    if kind != "json":
        return content.decode("utf-8", "replace").strip()
    try:
        data = json.loads(content)
    except ValueError as error:
        raise UserError(f"the .json of '{name}' in '{shard.where}' is no valid JSON: {error}; repair it") from None
    return data.get(label) if isinstance(data, dict) else None


def _dump(index: ShardIndex) -> bytes:
    about = json.dumps({"values": index.values, "found_in": index.found_in, "notes": index.notes})
    stream = io.BytesIO()
    np.savez(
        stream,
        names=np.frombuffer(index.names.block, dtype=np.uint8),
        ends=index.names.ends,
        starts=index.starts,
        sizes=index.sizes,
        about=np.frombuffer(about.encode(), dtype=np.uint8),
    )
    return stream.getvalue()


def _load(path: Path) -> ShardIndex | None:
    """An index as it was kept; None where there is none that can be read."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
            names = Names.of(arrays["names"].tobytes(), arrays["ends"])
            return ShardIndex(names, arrays["starts"], arrays["sizes"], **about)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
