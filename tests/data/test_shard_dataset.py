"""Training from prepared shards: the data set, flips, workers, and shards that are fetched from elsewhere."""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import fsspec
import numpy as np
import pytest
import torch
from errors import assert_tells, refused

from repae.config import UserError
from repae.data import Loader, ShardDataset, ShardsConfig
from repae.data.shard_folder import FieldSpec, ShardPlan, shard_file
from repae.data.shard_writer import ShardWriter, begin, finish
from repae.runtime.file_store import RemoteStore

COUNT, PER_SHARD, SIDE = 23, 5, 4


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose pixels are their number and their column, in five shards."""
    folder = tmp_path_factory.mktemp("prepared")
    field = FieldSpec(name="images", dtype="uint8", shape=(3, SIDE, SIDE))
    about = {"where": "x", "source": "0", "resolution": SIDE, "upright": False, "classes": ["a", "b", "c"]}
    plan = ShardPlan(kind="images", count=COUNT, per_shard=PER_SHARD, fields=(field,), about=about)
    begin(folder, plan)
    for number in range(plan.shards):
        with ShardWriter(folder, plan, number) as shard:
            for item in plan.span(number):
                shard.add(f"{item}.png", item % 3, images=pixels(item))
            shard.commit()
    finish(folder, plan, 3)
    return folder


def pixels(item: int) -> np.ndarray:
    return np.broadcast_to(10 * item + np.arange(SIDE, dtype=np.uint8), (3, SIDE, SIDE)).astype(np.uint8)


def test_shards_are_a_data_set(prepared: Path) -> None:
    """Protects the interface: sizes, names, labels, pixels at every index, flips of the named images only."""
    data = ShardsConfig(path=str(prepared)).open()
    assert (len(data), data.channels, data.resolution, data.class_names) == (COUNT, 3, SIDE, ("a", "b", "c"))
    assert data.labels.dtype == torch.int64 and data.labels.tolist() == [item % 3 for item in range(COUNT)]
    chosen = torch.tensor([22, 0, 7, 7])
    batch = data.batch(chosen, torch.tensor([False, True, True, False]))
    assert torch.equal(batch.indices, chosen) and torch.equal(batch.labels, chosen % 3)
    expected = [pixels(22), pixels(0)[..., ::-1], pixels(7)[..., ::-1], pixels(7)]
    assert all((image.numpy() == other).all() for image, other in zip(batch.images, expected, strict=True))
    with refused(IndexError, "23..23", "0..22"):
        data.batch(torch.tensor([23]))
    assert (data.flip, data.block) == (False, None) and data.broken == {}


def test_a_data_set_travels_without_its_labels(prepared: Path) -> None:
    """Protects worker processes from a copy of billions of labels: pickled it is small, and it is the same."""
    data = ShardsConfig(path=str(prepared), flip=True, block=5).open()
    data.batch(torch.arange(3))
    sent = pickle.dumps(data)
    again = pickle.loads(sent)
    assert isinstance(again, ShardDataset) and len(sent) < 1000
    assert (again.flip, again.block, again.fingerprint) == (True, 5, data.fingerprint)
    assert torch.equal(again.batch(torch.arange(COUNT)).images, data.batch(torch.arange(COUNT)).images)


def test_the_fingerprint_is_of_what_was_prepared(prepared: Path, tmp_path: Path) -> None:
    """Protects caches: equal wherever the folder lies and however it is read, another one for other pixels."""
    copy = shutil.copytree(prepared, tmp_path / "copy")
    first = ShardsConfig(path=str(prepared)).open().fingerprint
    assert ShardsConfig(path=str(copy), flip=True, block=3).open().fingerprint == first
    plan = ShardsConfig(path=str(prepared)).open().folder.plan
    with ShardWriter(copy, plan, 0) as shard:
        shard.add("0.png", 0, images=pixels(1))
        shard.commit()
    finish(copy, plan, 3)
    assert ShardsConfig(path=str(copy)).open().fingerprint != first


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_reads_shards(prepared: Path, workers: int) -> None:
    """Protects file handles of workers, and the order: any number of them, plain and by blocks."""
    for block in (None, PER_SHARD):
        data = ShardsConfig(path=str(prepared), block=block).open()
        data.batch(torch.arange(COUNT))  # every file is open here before the workers come
        stream = iter(Loader(data, 6, seed=3, workers=workers))
        batches = list(itertools.islice(stream, 8))
        stream.close()  # type: ignore[attr-defined]
        assert all(int(b.images[i, 0, 0, 0]) == 10 * int(b.indices[i]) for b in batches for i in range(6))
        seen = torch.cat([batch.indices for batch in batches]).tolist()
        assert sorted(seen[:COUNT]) == sorted(seen[COUNT : 2 * COUNT]) == list(range(COUNT))


def test_what_is_missing_is_said(prepared: Path, tmp_path: Path) -> None:
    """Protects the dry run: nothing where there is a folder, words where there is none; sizes are known before."""
    assert not any(ShardsConfig(path=str(prepared)).missing()) and ShardsConfig(path=str(prepared)).resolution == SIDE
    nowhere = ShardsConfig(path=str(tmp_path / "nowhere"))
    assert_tells("".join(nowhere.missing()), tmp_path / "nowhere", "no manifest.json", "`repae prepare`")
    assert nowhere.resolution == 256


# From elsewhere


@pytest.fixture
def remote(prepared: Path) -> Iterator[str]:
    """The same folder in fsspec's memory."""
    memory = fsspec.filesystem("memory")
    for path in prepared.rglob("*"):
        if path.is_file():
            memory.pipe_file(f"/bucket/{path.relative_to(prepared)}", path.read_bytes())
    yield "memory://bucket"
    memory.store.clear()


SHARD_BYTES = 128 + PER_SHARD * 3 * SIDE * SIDE


def opened(remote: str, tmp_path: Path, shards: int = 9, **options: object) -> ShardDataset:
    return ShardsConfig(path=remote, cache=str(tmp_path / "cache"), cache_bytes=shards * SHARD_BYTES, **options).open()


def test_shards_are_fetched_when_they_are_needed(remote: str, prepared: Path, tmp_path: Path) -> None:
    """Protects time and space: only what is read is fetched, once, whole, and found again by the next run; what comes
    is what is there."""
    data = opened(remote, tmp_path)
    assert kept(tmp_path) == ["labels.npy"]
    assert torch.equal(data.batch(torch.tensor([1, 12])).images, local(prepared).batch(torch.tensor([1, 12])).images)
    assert kept(tmp_path) == ["000000.images.npy", "000002.images.npy", "labels.npy"]
    fsspec.filesystem("memory").rm("/bucket/shards/000000.images.npy")
    assert (opened(remote, tmp_path).batch(torch.tensor([4])).images[0].numpy() == pixels(4)).all()
    assert data.fingerprint == local(prepared).fingerprint


def local(prepared: Path) -> ShardDataset:
    return ShardsConfig(path=str(prepared)).open()


def kept(tmp_path: Path) -> list[str]:
    """Names of the files that were fetched, which are kept by their content."""
    return sorted(path.name.partition(".")[2] for path in (tmp_path / "cache").rglob("*.npy"))


def test_the_cache_keeps_what_was_used_last(remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the disk: the volume is bounded, the file not used for the longest goes, leftovers too; what is gone is
    fetched again, and files that are open stay readable."""
    monkeypatch.setattr("repae.data.shard_folder.OPEN_FILES", 1)
    data = opened(remote, tmp_path, shards=3)  # labels and two shards, or three without the labels
    folder = next((tmp_path / "cache").iterdir())
    (folder / "shards").mkdir(exist_ok=True)
    (folder / "shards" / ".tmp-0123").write_bytes(bytes(500))
    os.utime(folder / "shards" / ".tmp-0123", (0, 0))
    ages = iter(range(1, 100))
    touch = os.utime
    monkeypatch.setattr("os.utime", lambda path: touch(path, (next(ages),) * 2))
    for item in (0, 5, 0, 10, 15):
        assert (data.batch(torch.tensor([item])).images[0].numpy() == pixels(item)).all()
        assert sum(path.stat().st_size for path in folder.rglob("*.npy")) <= 3 * SHARD_BYTES
    assert not list(folder.rglob(".tmp-*"))
    assert {"000002.images.npy", "000003.images.npy"} <= set(kept(tmp_path)) and "000001.images.npy" not in kept(
        tmp_path
    )
    assert torch.equal(data.batch(torch.arange(COUNT)).labels, torch.arange(COUNT) % 3)


def test_a_folder_that_is_made_anew_is_fetched_anew(
    remote: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects pixels: files kept of the former folder at this URL are not taken for those of the new one, though they
    have the same names and sizes. By default all is kept in the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = ShardsConfig(path=remote).open()
    assert (data.batch(torch.tensor([0])).images[0].numpy() == pixels(0)).all()
    assert (tmp_path / "cache" / "repae" / "shards").is_dir() and "000000.images.npy" in kept(tmp_path)
    copy = shutil.copytree(prepared, tmp_path / "copy")
    with ShardWriter(copy, data.folder.plan, 0) as shard:
        shard.add("0.png", 0, images=pixels(1))
        for item in range(1, PER_SHARD):
            shard.add(f"{item}.png", item % 3, images=pixels(item))
        shard.commit()
    finish(copy, data.folder.plan, 3)
    for path in copy.rglob("*.*"):
        fsspec.filesystem("memory").pipe_file(f"/bucket/{path.relative_to(copy)}", path.read_bytes())
    assert (ShardsConfig(path=remote).open().batch(torch.tensor([0])).images[0].numpy() == pixels(1)).all()


def test_a_cut_file_in_the_cache_is_fetched_again(remote: str, tmp_path: Path) -> None:
    """Protects against what a full disk or a hand left there."""
    opened(remote, tmp_path).batch(torch.tensor([0]))
    path = next((tmp_path / "cache").rglob("*.000000.images.npy"))
    os.truncate(path, 140)
    assert (opened(remote, tmp_path).batch(torch.tensor([0])).images[0].numpy() == pixels(0)).all()


def test_trouble_from_afar_is_said_in_words(
    remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Protects the user: a missing and a short shard, a network that fails for good and one that fails once, a cache
    smaller than a shard, a storage nobody knows, no manifest."""
    memory = fsspec.filesystem("memory")
    memory.rm("/bucket/shards/000001.images.npy")
    memory.pipe_file("/bucket/shards/000002.images.npy", b"short")
    data = opened(remote, tmp_path)
    with refused(UserError, "memory://bucket/shards/000001.images.npy", "damaged", "delete shards/000001.json"):
        data.batch(torch.tensor([5]))
    with refused(UserError, "shards/000002.images.npy", "5 bytes", 368, "delete shards/000002.json"):
        data.batch(torch.tensor([10]))
    with refused(UserError, "shards/000000.images.npy", "368 bytes", 350, "--data.cache-bytes"):
        ShardsConfig(path=remote, cache=str(tmp_path / "small"), cache_bytes=350).open().batch(torch.tensor([0]))
    with refused(UserError, "nonsense://x/manifest.json", "Protocol not known"):
        ShardsConfig(path="nonsense://x").open()
    with refused(UserError, "memory://empty", "no manifest.json", "`repae prepare`"):
        ShardsConfig(path="memory://empty").open()
    with (
        monkeypatch.context() as patch,
        refused(UserError, "memory://bucket", "no s3fs", "install it, or copy"),
    ):
        patch.setattr(fsspec.core, "url_to_fs", Mock(side_effect=ImportError("no s3fs")))
        ShardsConfig(path=remote).open()
    monkeypatch.setattr("repae.runtime.remote.WAITS", (0.0, 0.0, 0.0))
    asked, filesystem = [], type(memory)
    get = filesystem.get_file

    def fail(self: object, *arguments: object, **options: object) -> None:
        asked.append(arguments)
        if len(asked) != 2:
            raise TimeoutError("the line is dead")
        get(self, *arguments, **options)

    monkeypatch.setattr(filesystem, "get_file", fail)
    assert len(data.batch(torch.tensor([0])).images) == 1 and len(asked) == 2
    with refused(UserError, "shards/000004.images.npy", "4 tries", "the line is dead", "the connection"):
        data.batch(torch.tensor([20]))
    assert not list((tmp_path / "cache").rglob(".tmp-*"))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        opened(remote, tmp_path, shards=4)
        opened(remote, tmp_path, shards=4, block=5)
    assert_tells(caplog.messages[0], "fetched again and again", "--data.block 5")
    assert_tells(caplog.messages[1], "16 blocks")


def test_a_shard_is_fetched_once(remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the network: another reader of the same machine finds the file."""
    fetched, fetch = [], RemoteStore._fetch

    def slowly(self: RemoteStore, name: str, target: Path) -> int:
        fetched.append(name)
        return fetch(self, name, target)

    monkeypatch.setattr(RemoteStore, "_fetch", slowly)
    one, other = opened(remote, tmp_path), opened(remote, tmp_path)
    one.batch(torch.tensor([0, 5]))
    other.batch(torch.tensor([0, 5]))
    assert fetched == ["labels.npy", shard_file(0, "images"), shard_file(1, "images")]
