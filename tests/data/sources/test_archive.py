"""Zip and tar archives where they lie: classes, damage, compression, links, object storage, size."""

from __future__ import annotations

import io
import pickle
import tarfile
import time
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from errors import refused
from image_sources import write_tar, write_zip

from repae.config import UserError
from repae.data import ArchiveConfig
from repae.data.image_source import BrokenImageError, ImageSource

FILES = {"cat/1.png": b"one" * 50, "cat/deep/2.jpg": b"two", "dog/3.webp": b"three", "dog/readme.txt": b"no image"}
HIDDEN = {"__MACOSX/cat/._1.png": b"", "cat/.DS_Store": b"", ".git/x.png": b""}


def contents(source: ImageSource) -> dict[str, tuple[bytes, str]]:
    return {source.name(i): (source.read(i), source.class_names[source.labels[i]]) for i in range(len(source))}


EXPECTED = {
    "cat/1.png": (b"one" * 50, "cat"),
    "cat/deep/2.jpg": (b"two", "cat"),
    "dog/3.webp": (b"three", "dog"),
}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_zip(method: int, tmp_path: Path) -> None:
    """Protects every way of packing that is common, a program in front of the archive, and a comment behind it."""
    path = write_zip(tmp_path / "a.zip", {**HIDDEN, **FILES}, method)
    assert contents(ArchiveConfig(path=str(path)).source()) == EXPECTED
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"c" * 300
    path.write_bytes(b"#!/bin/sh\n" * 9 + path.read_bytes())
    found = tmp_path / "renamed"
    assert contents(ArchiveConfig(path=str(write_zip(found, FILES, method))).source()) == EXPECTED


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar(form: int, tmp_path: Path) -> None:
    """Protects the three forms of a tar, with names beyond a hundred letters, folders and `./` before names."""
    long = {f"dog/{'n' * 90}/{'m' * 90}.png": b"long"}
    path = write_tar(
        tmp_path / "a.tar", {f"./{name}": content for name, content in {**FILES, **long, **HIDDEN}.items()}, form
    )
    with tarfile.open(path, "a") as archive:
        folder = tarfile.TarInfo("empty/")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    (name,) = long
    assert contents(ArchiveConfig(path=str(path)).source()) == EXPECTED | {name: (b"long", "dog")}


def test_links_inside_a_tar_are_followed(tmp_path: Path) -> None:
    """Protects archives that hold an image once and name it twice, and those with links to nowhere."""
    path = write_tar(tmp_path / "a.tar", FILES)
    with tarfile.open(path, "a") as archive:
        for name, kind, target in (
            ("dog/hard.png", tarfile.LNKTYPE, "cat/1.png"),
            ("dog/soft.png", tarfile.SYMTYPE, "../cat/1.png"),
            ("dog/nowhere.png", tarfile.SYMTYPE, "../../etc/x.png"),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            archive.addfile(link)
    found = contents(ArchiveConfig(path=str(path)).source())
    assert found == EXPECTED | {"dog/hard.png": (b"one" * 50, "dog"), "dog/soft.png": (b"one" * 50, "dog")}


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_a_packed_folder_of_classes(write: object, tmp_path: Path) -> None:
    """Protects what packing a folder gives: the one folder around the classes is no class; a note says so."""
    packed = {f"pets/{name}": content for name, content in FILES.items()}
    source = ArchiveConfig(path=str(write(tmp_path / "pets", packed))).source()
    assert source.class_names == ("cat", "dog") and len(source) == 3
    assert "lie in 'pets/', so the classes are the folders in that" in source.notes[0]
    assert ArchiveConfig(path=str(tmp_path / "pets"), inside="pets/cat").source().class_names == ("deep",)
    with refused(UserError, "'cats'", tmp_path / "pets", "--data.inside"):
        ArchiveConfig(path=str(tmp_path / "pets"), inside="cats").source()


def test_splits_inside_an_archive(tmp_path: Path) -> None:
    """Protects against splits as classes, and shows the way to one of them."""
    packed = {f"{split}/{own}/1.png": split.encode() for split in ("train", "val") for own in ("cat", "dog")}
    path = str(write_zip(tmp_path / "a.zip", packed))
    with refused(UserError, "'train', 'val'", "splits", "--data.inside train"):
        ArchiveConfig(path=path).source()
    source = ArchiveConfig(path=path, inside="val").source()
    assert source.class_names == ("cat", "dog") and source.read(0) == b"val"
    packed = {f"imagenet/{name}": content for name, content in packed.items()}
    with refused(UserError, "'train', 'val'", "splits", "--data.inside imagenet/train"):
        ArchiveConfig(path=str(write_zip(tmp_path / "b.zip", packed))).source()


def test_without_classes(tmp_path: Path) -> None:
    """Protects unconditional training from an archive of images alone."""
    path = str(write_tar(tmp_path / "a.tar", {"2.png": b"2", "1.png": b"1"}))
    with refused(UserError, "2 images", "no class subfolder", "dataset.json", "--data.labels none"):
        ArchiveConfig(path=path).source()
    assert contents(ArchiveConfig(path=path, labels="none").source()) == {
        "1.png": (b"1", "all"),
        "2.png": (b"2", "all"),
    }


@pytest.mark.parametrize("mode, remedy", [("w:gz", "gunzip"), ("w:bz2", "bunzip2"), ("w:xz", "unxz")])
def test_a_compressed_tar_is_refused_with_the_remedy(mode: str, remedy: str, tmp_path: Path) -> None:
    """Protects from a training that would unpack everything for each image; the content tells, not the name."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, mode) as archive:
        archive.addfile(tarfile.TarInfo("cat/1.png"), io.BytesIO())
    with refused(UserError, path, "compressed as a whole", f"{remedy} -k") as error:
        ArchiveConfig(path=str(path)).source()
    assert "\n" not in str(error.value)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    """Protects against half a set: a tar that ends early or has a hole, a zip without its end, and what is neither."""
    files = {f"cat/{i}.png": bytes([i]) * 2000 for i in range(20)}
    whole = write_tar(tmp_path / "a.tar", files).read_bytes()
    for damaged, after in (
        (whole[:9_000], "4 files"),
        (whole[: 512 * 7], "2 files"),
        (whole[:5120] + b"x" * 512 + whole[5632:], "2 files"),
        (b"x" * 2000, "0 files"),
        (b"", "0 files"),
    ):
        (tmp_path / "b.tar").write_bytes(damaged)
        with refused(UserError, tmp_path / "b.tar", "damaged", after, "again"):
            ArchiveConfig(path=str(tmp_path / "b.tar")).source()
    (tmp_path / "b.zip").write_bytes(write_zip(tmp_path / "a.zip", files).read_bytes()[:-500])
    with refused(UserError, tmp_path / "b.zip", "no zip archive", "again"):
        ArchiveConfig(path=str(tmp_path / "b.zip")).source()
    with refused(UserError, tmp_path / "no.zip", "No such file", "correct the path"):
        ArchiveConfig(path=str(tmp_path / "no.zip")).source()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damage_inside_a_zip_is_one_broken_image(method: int, tmp_path: Path) -> None:
    """Protects the rest: the checksum is compared, and what it finds is a matter of this image alone."""
    path = write_zip(tmp_path / "a.zip", {f"cat/{i}.png": bytes(range(256)) * 4 for i in range(3)}, method)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        data[archive.getinfo("cat/1.png").header_offset + 60] ^= 0xFF
        data[archive.getinfo("cat/2.png").header_offset] = 0
    path.write_bytes(data)
    source = ArchiveConfig(path=str(path)).source()
    assert source.read(0) == bytes(range(256)) * 4
    for index, where in ((1, "checksum"), (2, "where it should begin")):
        with refused(BrokenImageError, "archive is damaged", where):
            source.read(index)


def test_a_bomb_in_a_zip_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects memory, from a size that is said and from one that is hidden."""
    path = write_zip(tmp_path / "a.zip", {"cat/1.png": bytes(100_000), "cat/2.png": b"x" * 50}, zipfile.ZIP_DEFLATED)
    source = ArchiveConfig(path=str(path)).source()
    source.storage.unpacked[0] = 1000
    with refused(BrokenImageError, "archive is damaged", "checksum"):
        source.read(0)
    source.storage.unpacked[0] = 100_000
    monkeypatch.setattr("repae.data.sources.zipped.MOST_BYTES", 99_999)
    with refused(BrokenImageError, "100,000 bytes", "99,999"):
        source.read(0)
    assert source.read(1) == b"x" * 50


def test_what_a_zip_may_not_be(tmp_path: Path) -> None:
    """Protects against a wrong password being asked for at step 1000, and names a method that is not known."""
    path = write_zip(tmp_path / "a.zip", FILES)
    plain = path.read_bytes()
    at = plain.index(b"PK\x01\x02")
    for offset, value, facts in (
        (8, b"\x01\x00", ["encrypted", "without password"]),
        (10, b"\x0e\x00", ["method 14", "stored, deflate, bzip2"]),
    ):
        path.write_bytes(plain[: at + offset] + value + plain[at + offset + 2 :])
        with refused(UserError, path, "cat/1.png", *facts):
            ArchiveConfig(path=str(path)).source()


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_an_archive_that_goes_away_is_no_broken_image(write: object, tmp_path: Path) -> None:
    """Protects a run whose disk was unmounted from skipping everything; and a shortened one is said to end."""
    path = write(tmp_path / "a", FILES)
    config = ArchiveConfig(path=str(path))
    data, source = pickle.loads(pickle.dumps((config.open(), config.source())))
    path.rename(tmp_path / "b")
    with refused(UserError, "cat/1.png", tmp_path / "a", "No such file", "not the image"):
        data.encoded(0)
    path.write_bytes((tmp_path / "b").read_bytes()[:40])
    with pytest.raises(BrokenImageError):
        source.read(len(source) - 1)


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_an_archive_in_object_storage(write: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects URLs: read by ranges, asked again where the network fails, and broken only when it stays so."""
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/set", write(tmp_path / "a", FILES).read_bytes())
    source = ArchiveConfig(path="memory://bucket/set").source()
    assert contents(source) == EXPECTED
    failures = iter([TimeoutError("slow"), ConnectionError("gone")])
    waited: list[float] = []
    cat = type(store).cat_file

    def flaky(*arguments: object, **options: object) -> bytes:
        if (failure := next(failures, None)) is not None:
            raise failure
        return cat(*arguments, **options)

    monkeypatch.setattr(type(store), "cat_file", flaky)
    monkeypatch.setattr("repae.runtime.remote.time.sleep", waited.append)
    assert source.read(0) == b"one" * 50 and waited == [0.25, 1.0]
    failures = iter([ConnectionError("gone")] * 4)
    with refused(OSError, "memory://bucket/set", "4 tries", "gone"):
        source.read(0)
    with refused(UserError, "memory://bucket/none", "not there", "correct the URL"):
        ArchiveConfig(path="memory://bucket/none").source()
    with refused(UserError, "nothing://bucket/none", "Protocol not known", "check the URL"):
        ArchiveConfig(path="nothing://bucket/none").source()


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_tens_of_thousands_of_files(write: object, tmp_path: Path) -> None:
    """Protects the time to the first step, and memory: no text is kept for each image, and none is read."""
    files = {f"n{i % 100:04d}/{i:06d}.png": b"x" for i in range(10_000)}
    path = write(tmp_path / "a", files)
    start = time.process_time()
    source = ArchiveConfig(path=str(path)).source()
    assert time.process_time() - start < 3
    assert len(source) == 10_000 and len(source.class_names) == 100
    kept = [value for value in vars(source.storage).values() if isinstance(value, (list, dict, set))]
    assert kept == [] and isinstance(source.positions, np.ndarray)
