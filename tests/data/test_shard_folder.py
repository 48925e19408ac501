"""Folders of shards: what is written is what is read, by anybody, in any process; what is damaged is refused."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing as mp
import os
import pickle
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from errors import refused
from hypothesis import given, settings
from hypothesis import strategies as st

from repae.config import UserError
from repae.data.shard_folder import (
    HEADER_BYTES,
    FieldSpec,
    ShardFolder,
    ShardPlan,
    read_manifest,
    shard_file,
    sidecar_file,
)
from repae.data.shard_writer import ShardWriter, begin, finish, missing_shards, read_plan
from repae.runtime.digest import sha256_of

DTYPES = ["uint8", "int64", "float32", "float16", "bfloat16"]


@pytest.fixture(autouse=True, scope="module")
def _quickly() -> Iterator[None]:
    """A busy disk may take a tenth of a second to make a file safe, and hundreds are written here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


def plan(
    count: int = 10, per_shard: int = 4, fields: tuple[FieldSpec, ...] | None = None, **about: object
) -> ShardPlan:
    fields = fields or (FieldSpec(name="images", dtype="uint8", shape=(3, 2, 2)),)
    return ShardPlan(kind="images", count=count, per_shard=per_shard, fields=fields, about=about)


def content(spec: FieldSpec, number: int) -> np.ndarray:
    """An item that says whose it is: arbitrary bits of the field's type."""
    random = np.random.default_rng([number, len(spec.name)])
    return random.integers(0, 256, spec.item_bytes, dtype=np.uint8).view(spec.numpy).reshape(spec.shape)


def write(folder: Path, plan: ShardPlan, refused: set[int] = frozenset(), classes: int = 3) -> None:
    begin(folder, plan)
    for number in missing_shards(folder, plan):
        with ShardWriter(folder, plan, number) as shard:
            for item in plan.span(number):
                if item in refused:
                    shard.refuse(f"item {item}", "a reason")
                else:
                    shard.add(f"item {item}", item % classes, **{f.name: content(f, item) for f in plan.fields})
                    shard.count("even" if item % 2 == 0 else "odd")
            shard.commit()
    finish(folder, plan, classes)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten items in three shards, the sixth refused."""
    write(tmp_path / "made", plan(), {5})
    return tmp_path / "made"


@settings(max_examples=15)
@given(data=st.data(), count=st.integers(1, 30), per_shard=st.integers(1, 12), dtype=st.sampled_from(DTYPES))
def test_what_is_written_is_read(data: st.DataObject, count: int, per_shard: int, dtype: str) -> None:
    """Protects every byte, for all types, shapes, sizes and refused items, whole shards of them included: rows in any
    order and with repeats, labels, names, counts, the class counts, checksums, and `numpy.load` of the same files."""
    shape = tuple(data.draw(st.lists(st.integers(1, 3), max_size=3), label="shape"))
    refused = data.draw(st.sets(st.integers(0, count - 1)), label="refused")
    fields = (FieldSpec(name="one", dtype=dtype, shape=shape), FieldSpec(name="other", dtype="uint8", shape=(5,)))
    with tempfile.TemporaryDirectory() as name:
        folder, made = Path(name) / "made", plan(count, per_shard, fields)
        write(folder, made, refused)
        read, kept = ShardFolder(folder, "images"), [item for item in range(count) if item not in refused]
        assert len(read) == len(kept) == read.manifest.count
        assert [int(item.name.removeprefix("item ")) for item in read.manifest.refused] == sorted(refused)
        assert read.labels().tolist() == [item % 3 for item in kept]
        assert list(read.manifest.class_counts) == [sum(item % 3 == label for item in kept) for label in range(3)]
        assert sum(read.manifest.tally.values()) == len(kept)
        chosen = data.draw(st.lists(st.integers(0, len(kept) - 1), max_size=9) if kept else st.just([]), label="chosen")
        for spec in fields:
            rows = read.rows(spec.name, chosen)
            assert rows.shape == (len(chosen), *spec.shape)
            assert rows.dtype == getattr(torch, spec.dtype)
            assert [bits(row) for row in rows] == [content(spec, kept[place]).tobytes() for place in chosen]
            whole = [np.load(folder / shard_file(s, spec.name), mmap_mode="r") for s in range(made.shards)]
            assert np.concatenate(whole).tobytes() == b"".join(content(spec, item).tobytes() for item in kept)
        assert [name for s in range(made.shards) for name in read.names(s)] == [f"item {item}" for item in kept]
        for number, shard in enumerate(read.manifest.shards):
            for file, (size, digest) in shard.files.items():
                data_of_file = (folder / "shards" / file).read_bytes()
                assert (len(data_of_file), hashlib.sha256(data_of_file).hexdigest()) == (size, digest)
                assert shard.count == len([item for item in made.span(number) if item not in refused])


@given(count=st.integers(0, 10**9), dtype=st.sampled_from(DTYPES), shape=st.lists(st.integers(1, 9999), max_size=4))
def test_the_header_has_one_length(count: int, dtype: str, shape: list[int]) -> None:
    """Protects the place of the first item, and numpy's reading of the header."""
    spec = FieldSpec(name="x", dtype=dtype, shape=tuple(shape))
    header = spec.header(count)
    assert len(header) == HEADER_BYTES
    with tempfile.TemporaryFile() as file:
        file.write(header)
        file.seek(0)
        assert np.lib.format.read_magic(file) == (1, 0)
        assert np.lib.format.read_array_header_1_0(file) == ((count, *shape), False, spec.numpy)


@given(count=st.integers(1, 1000), per_shard=st.integers(1, 1000))
def test_shards_cover_the_source(count: int, per_shard: int) -> None:
    """Protects against items that belong to no shard or to two."""
    made = plan(count, per_shard)
    assert [item for number in range(made.shards) for item in made.span(number)] == list(range(count))
    assert all(0 < len(made.span(number)) <= per_shard for number in range(made.shards))


def test_equal_plans_give_equal_bytes(tmp_path: Path) -> None:
    """Protects resuming: shards made in another order and one of them twice give the same folder, no more."""
    write(tmp_path / "one", plan(), {5})
    other = begin(tmp_path / "other", plan())
    for number in (2, 0, 1, 0):
        with ShardWriter(tmp_path / "other", other, number) as shard:
            shard.add("half", 0, images=np.zeros((3, 2, 2), np.uint8))
    assert missing_shards(tmp_path / "other", other) == [0, 1, 2]
    write(tmp_path / "other", other, {5})
    assert tree(tmp_path / "one") == tree(tmp_path / "other")
    finish(tmp_path / "one", plan(), 3)
    assert tree(tmp_path / "one") == tree(tmp_path / "other")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_shard_counts_when_it_is_complete(folder: Path) -> None:
    """Protects against half shards: one without its sidecar, with a cut array or without one is missing."""
    assert missing_shards(folder, plan()) == []
    (folder / sidecar_file(0)).unlink()
    os.truncate(folder / shard_file(1, "images"), 150)
    (folder / shard_file(2, "labels")).unlink()
    assert missing_shards(folder, plan()) == [0, 1, 2]
    assert missing_shards(folder, plan(), range(1, 3)) == [1, 2]
    assert missing_shards(folder, plan(), range(0)) == []
    write(folder, plan(), {5})
    assert len(ShardFolder(folder, "images").rows("images", range(9))) == 9


@pytest.mark.parametrize("when", ["append", "commit"])
def test_a_full_disk_leaves_what_was_complete(tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the other shards, and the disk: what was written of the shard is removed, whenever the disk fills."""
    folder = tmp_path / "made"
    begin(folder, plan())
    with ShardWriter(folder, plan(), 0) as shard:
        for item in range(4):
            shard.add(str(item), 0, images=np.full((3, 2, 2), item, np.uint8))
        shard.commit()
    before = tree(folder)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with refused(OSError, "No space left"), ShardWriter(folder, plan(), 1) as shard:
        shard.add("4", 0, images=np.zeros((3, 2, 2), np.uint8))
        monkeypatch.setattr("hashlib.sha256" if when == "append" else "os.fsync", full)
        if when == "append":
            shard._files[0]._file.close()
            shard._files[0]._file = Full(shard._files[0]._unfinished.path)
        shard.add("5", 0, images=np.zeros((3, 2, 2), np.uint8))
        shard.commit()
    assert tree(folder) == before
    assert missing_shards(folder, plan()) == [1, 2]


class Full:
    """A file on a disk without room."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("ab")

    def write(self, data: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        self.file.close()


def test_names_may_be_any_bytes(tmp_path: Path) -> None:
    """Protects folders from other systems: a name that is no text comes back as it was; refused ones can be printed."""
    names = ["naïve/漢字 🙂.png", os.fsdecode(b"latin-\xe9.png")]
    begin(tmp_path / "made", plan(3))
    with ShardWriter(tmp_path / "made", plan(3), 0) as shard:
        for name in names:
            shard.add(name, 0, images=np.zeros((3, 2, 2), np.uint8))
        shard.refuse(names[1], "line\nbreak")
        shard.commit()
    manifest = finish(tmp_path / "made", plan(3), 1)
    assert ShardFolder(tmp_path / "made", "images").names(0) == names
    assert (manifest.refused[0].name, manifest.refused[0].reason) == ("latin-\ufffd.png", "line\\nbreak")


def test_what_is_on_the_disk_comes_before_what_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects against a power cut: arrays and their names are safe before the sidecar makes them count."""
    begin(tmp_path / "made", plan())
    safe: list[str] = []
    monkeypatch.setattr("os.fsync", lambda file: safe.append(Path(f"/proc/self/fd/{file}").readlink().name))
    with ShardWriter(tmp_path / "made", plan(), 0) as shard:
        shard.add("x", 0, images=np.zeros((3, 2, 2), np.uint8))
        assert not (tmp_path / "made" / shard_file(0, "images")).exists()
        shard.commit()
    assert [name.partition("-0")[2].partition("-")[0] or name for name in safe] == [
        "00000.images.npy", "00000.labels.npy", "shards", "00000.json", "shards"
    ]  # fmt: skip


def test_items_that_do_not_fit_are_our_mistake(tmp_path: Path) -> None:
    """Protects the layout: another shape, type or field is never written."""
    begin(tmp_path / "made", plan())
    with ShardWriter(tmp_path / "made", plan(), 0) as shard:
        for wrong in (np.zeros((2, 2, 3), np.uint8), np.zeros((3, 2, 2), np.int64)):
            with pytest.raises(AssertionError):
                shard.add("x", 0, images=wrong)
        with pytest.raises(AssertionError):
            shard.add("x", 0, pictures=np.zeros((3, 2, 2), np.uint8))
    with refused(AssertionError, "outside the folder"):
        write(tmp_path / "whole", plan())
        ShardFolder(tmp_path / "whole", "images").rows("images", [10])


def test_another_plan_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    """Protects a folder from being mixed: what differs is named with both values; where it comes from is only said."""
    begun = begin(tmp_path / "begun", plan(where="here", upright=False))
    assert begin(tmp_path / "begun", plan(where="there", upright=False)) == begun == read_plan(tmp_path / "begun")
    for other, facts in [
        (plan(11), ["count was 10", 11]),
        (plan(10, 5), ["per_shard was 4", 5]),
        (plan(10, 4, resolution=8), ["resolution was None", 8]),
    ]:
        with refused(UserError, folder, *facts, "another --out", "former settings"):
            begin(folder, other)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with refused(UserError, tmp_path / "full", "not empty", "--out"):
        begin(tmp_path / "full", plan())
    (folder / "plan.json").write_text("{")
    with refused(UserError, folder / "plan.json", "line 1 column 2", "delete the folder"):
        begin(folder, plan())


def test_a_reader_travels_without_its_files(folder: Path) -> None:
    """Protects worker processes: pickled after reading, it opens its own files; so does a forked one."""
    read = ShardFolder(folder, "images")
    rows = read.rows("images", range(9))
    assert read._open and not pickle.loads(pickle.dumps(read))._open
    assert torch.equal(pickle.loads(pickle.dumps(read)).rows("images", range(9)), rows)


@pytest.fixture
def many(tmp_path: Path) -> ShardFolder:
    """Three hundred numbers in three shards, all files opened here already."""
    made = plan(300, 100, (FieldSpec(name="images", dtype="uint8", shape=(1,)),))
    begin(tmp_path / "many", made)
    for number in range(3):
        with ShardWriter(tmp_path / "many", made, number) as shard:
            for item in made.span(number):
                shard.add(str(item), 0, images=np.array([item % 256], np.uint8))
            shard.commit()
    finish(tmp_path / "many", made, 1)
    read = ShardFolder(tmp_path / "many", "images")
    read.rows("images", [0, 100, 200])
    return read


def _reads_rightly(folder: ShardFolder, seed: int) -> bool:
    chosen = np.random.default_rng(seed).integers(0, len(folder), 400).tolist()
    return all(int(folder.rows("images", [item])) == item % 256 for item in chosen)


def test_forked_readers_do_not_disturb_each_other(many: ShardFolder) -> None:
    """Protects against shared file positions: parent and children read the same files at once, each rightly."""
    context = mp.get_context("fork")
    children = [
        context.Process(target=lambda seed: os._exit(not _reads_rightly(many, seed)), args=(seed,)) for seed in range(2)
    ]
    for child in children:
        child.start()
    assert _reads_rightly(many, 9)
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]


@pytest.mark.slow
def test_a_spawned_reader_opens_its_own_files(many: ShardFolder) -> None:
    """Protects systems whose workers start afresh."""
    with ProcessPoolExecutor(1, mp_context=mp.get_context("spawn")) as pool:
        rows = pool.submit(many.rows, "images", [7, 299, 100]).result(timeout=120)
    assert rows[:, 0].tolist() == [7, 299 - 256, 100]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_few_files_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the limit of open files, whatever the number of shards."""
    monkeypatch.setattr("repae.data.shard_folder.OPEN_FILES", 3)
    write(tmp_path / "made", plan(20, 2))
    read = ShardFolder(tmp_path / "made", "images")
    before = open_files()
    assert bits(read.rows("images", range(20))) == b"".join(content(plan().fields[0], i).tobytes() for i in range(20))
    assert open_files() == before + 3


@pytest.mark.parametrize("file", [shard_file(1, "images"), "labels.npy"])
@pytest.mark.parametrize("harm", ["cut", "longer", "gone"])
def test_a_damaged_file_is_refused_with_the_remedy(folder: Path, file: str, harm: str) -> None:
    """Protects training from another item's bytes: nothing is read of a file of the wrong size; the words say which,
    and following them mends the folder."""
    path = folder / file
    if harm == "gone":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size + (1 if harm == "longer" else -1))
    read = ShardFolder(folder, "images")
    size = path.stat().st_size if path.exists() else None
    seen = [f"{size} bytes"] if size else ["No such file"]
    remedy = f"{'; ' if file == 'labels.npy' else f'; delete {sidecar_file(1)} and '}run the command"
    with refused(UserError, path, "damaged", *seen, remedy) as error:
        read.labels() if file == "labels.npy" else read.rows("images", [4])
    assert "\n" not in str(error.value)
    if file != "labels.npy":
        assert len(read.rows("images", [0, 8])) == 2
        (folder / sidecar_file(1)).unlink()
    write(folder, plan(), {5})
    assert len(ShardFolder(folder, "images").rows("images", [4])) == 1
    assert len(ShardFolder(folder, "images").labels()) == 9


def test_the_manifest_is_sealed(folder: Path, tmp_path: Path) -> None:
    """Protects against hands: any change of any number is noticed; absence and another kind are said in words."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for change in (
        {"count": 8},
        {"class_counts": [9, 0, 0]},
        {"shards": [{**manifest["shards"][0], "count": 3}, *manifest["shards"][1:]]},
        {"plan": {**manifest["plan"], "about": {"resolution": 9}}},
    ):
        path.write_text(json.dumps({**manifest, **change}))
        with refused(UserError, path, "altered", "restore it", "`repae prepare`"):
            read_manifest(folder, "images")
    path.write_text(json.dumps(manifest))
    assert read_manifest(folder, "images").count == 9
    with refused(UserError, folder, "holds images", "not latents", "made by `repae cache`"):
        read_manifest(folder, "latents")
    path.write_text("{}")
    with refused(UserError, path, "plan is missing"):
        read_manifest(folder, "images")
    path.unlink()
    with refused(UserError, folder, "not finished", "no manifest.json", "`repae prepare` command"):
        read_manifest(folder, "images")
    with refused(UserError, tmp_path / "nowhere", "no manifest.json", "`repae prepare`"):
        read_manifest(tmp_path / "nowhere", "images")


def test_labels_are_mapped(folder: Path) -> None:
    """Protects the memory of billions of labels: they are pages of the file, and a change of them stays here."""
    labels = ShardFolder(folder, "images").labels()
    assert isinstance(labels, np.memmap) and labels.flags.writeable
    before = sha256_of(folder / "labels.npy")
    labels[0] = 99
    assert sha256_of(folder / "labels.npy") == before
