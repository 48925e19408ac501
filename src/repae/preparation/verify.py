"""Every byte of a folder of shards held against its manifest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from repae.config import UserError
from repae.data.shard_folder import ALL_LABELS, MADE_BY, SHARDS, Manifest, read_manifest, shard_file, sidecar_file
from repae.runtime.digest import sha256_of
from repae.track import ProgressBar

SHOWN = 10


def verify(folder: Path, kind: Literal["images", "latents"]) -> Manifest:
    """Reads every file of a finished folder and compares size and SHA-256.

    Raises:
        UserError: the manifest or any file is missing or damaged; names them and the remedy.
    """
    manifest = read_manifest(folder, kind)
    bar = ProgressBar(len(manifest.shards), title="verify")
    problems: list[str] = []
    broken: list[int] = []
    try:
        for number in range(len(manifest.shards)):
            found = list(_of_shard(folder, manifest, number))
            problems += found
            broken += [number] if found else []
            bar.log(number + 1, {})
    finally:
        bar.close()
    problems += _of_file(folder, ALL_LABELS, *manifest.labels)
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        sidecars = " ".join(sidecar_file(number) for number in broken[:SHOWN])
        delete = f"delete these files there: {sidecars}{' ...' if len(broken) > SHOWN else ''}; then " if broken else ""
        raise UserError(
            f"{folder} is damaged: {'; '.join(problems[:SHOWN])}{more}. Remedy: {delete}run the `{MADE_BY[kind]}` "
            "command that made the folder again: it makes what is missing and leaves the rest"
        )
    return manifest


def _of_shard(folder: Path, manifest: Manifest, number: int) -> Iterator[str]:
    fields = [*(field.name for field in manifest.plan.fields), "labels"]
    for name in (shard_file(number, field) for field in fields):
        yield from _of_file(folder, name, *manifest.shards[number].files[name.removeprefix(f"{SHARDS}/")])
    if not (folder / sidecar_file(number)).is_file():
        yield f"{sidecar_file(number)} is missing"


def _of_file(folder: Path, name: str, size: int, digest: str) -> Iterator[str]:
    path = folder / name
    try:
        found = path.stat().st_size
        if found != size:
            yield f"{name} has {found:,} bytes instead of {size:,}"
        elif sha256_of(path) != digest:
            yield f"{name} has another content than when it was made"
    except FileNotFoundError:
        yield f"{name} is missing"
    except OSError as error:
        yield f"{name} cannot be read: {error.strerror}"
