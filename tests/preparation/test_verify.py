"""`verify`: a folder is whole, or every damaged file is named with the remedy, which mends it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from errors import refused

from repae.config import UserError
from repae.data import FolderConfig
from repae.preparation.images import PrepareConfig, prepare
from repae.preparation.verify import verify


@pytest.fixture
def made(photos: Callable[..., Path], tmp_path: Path) -> Callable[[], Path]:
    """Prepares a folder, or goes on with it."""
    source = photos()

    def make() -> Path:
        prepare(
            FolderConfig(path=str(source)),
            tmp_path / "out",
            PrepareConfig(resolution=8, per_shard=2, workers=1),
            lambda _: None,
        )
        return tmp_path / "out"

    return make


def test_a_whole_folder_is_whole(made: Callable[[], Path]) -> None:
    """Protects against false alarms."""
    assert verify(made(), "images").count == 10


def test_every_kind_of_damage_is_named_and_mended(made: Callable[[], Path]) -> None:
    """Protects trained models: one changed bit, a cut, a missing file, a missing sidecar, and a changed label are all
    found at once; deleting what the words name and preparing again mends the folder."""
    folder = made()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    flip(folder / "shards" / "000000.images.npy", 200)
    os.truncate(folder / "shards" / "000001.images.npy", 300)
    (folder / "shards" / "000002.labels.npy").unlink()
    (folder / "shards" / "000003.json").unlink()
    flip(folder / "labels.npy", 130)
    facts = (
        "shards/000000.images.npy has another content",
        "shards/000001.images.npy has 300 bytes",
        "shards/000002.labels.npy is missing",
        "shards/000003.json is missing",
        "labels.npy has another content",
    )
    with refused(UserError, folder, *facts, 512) as error:
        verify(folder, "images")
    words = str(error.value)
    assert "\n" not in words
    _, _, remedy = words.partition("delete these files there: ")
    names = remedy.partition(";")[0].split()
    assert names == [f"shards/{number:06}.json" for number in range(4)]
    for name in names:
        (folder / name).unlink(missing_ok=True)
    made()
    assert verify(folder, "images").count == 10
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_many_damages_fit_on_a_line(made: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the screen."""
    folder = made()
    monkeypatch.setattr("repae.preparation.verify.SHOWN", 2)
    for path in (folder / "shards").glob("*.images.npy"):
        path.unlink()
    with refused(UserError, folder, "000001.images.npy is missing", "4 more", "000001.json", "then run"):
        verify(folder, "images")
