"""`prepare`: right pixels, one result however it is made, and words where it cannot be made."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from errors import refused
from PIL import Image, ImageOps

from repae.config import UserError, locked
from repae.data import FolderConfig, ShardsConfig, centre_crop
from repae.data.decode import orientation
from repae.data.shard_folder import ShardFolder, sidecar_file
from repae.data.shard_writer import ShardWriter, _FieldFile
from repae.preparation.images import SHARD_BYTES, PrepareConfig, PreparedImages, default_per_shard, prepare
from repae.preparation.part import MachinePart
from repae.preparation.verify import verify

Photos = Callable[..., Path]


def run(source: Path, out: Path, **options: Any) -> PreparedImages:
    config = PrepareConfig(**{"resolution": 8, "per_shard": 2, "workers": 1, **options})
    return prepare(FolderConfig(path=str(source)), out, config, say=lambda _: None)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_pixels_labels_and_names_are_those_of_the_source(photos: Photos, tmp_path: Path) -> None:
    """Protects the training data: the ADM crop bit for bit, the right label, every readable image once and in order;
    what was refused is listed with the reason; nothing is turned, and how much could be is counted."""
    source = photos()
    prepared = run(source, tmp_path / "out")
    manifest = prepared.manifest
    assert manifest is not None and (manifest.count, manifest.class_counts) == (10, (4, 4, 2))
    assert [(item.name, item.reason) for item in manifest.refused] == [
        ("dog/0002.jpg", "the file is empty"),
        ("dog/0005.jpg", "it is no JPEG, PNG or WebP image"),
    ]
    assert manifest.tally == {"exif_turned": 1}
    about = manifest.plan.about
    assert (about["where"], about["resolution"], about["classes"]) == (str(source), 8, ["bee", "cat", "dog"])
    data = ShardsConfig(path=str(tmp_path / "out")).open()
    folder = ShardFolder(tmp_path / "out", "images")
    names = [name for number in range(manifest.plan.shards) for name in folder.names(number)]
    assert names == sorted(str(path.relative_to(source)) for path in source.rglob("*.*") if path.stat().st_size > 8)
    for index, name in enumerate(names):
        image, label = data.item(index)
        expected = centre_crop(Image.open(source / name).convert("RGB"), 8)
        assert (image.numpy() == expected.transpose(2, 0, 1)).all()
        assert data.class_names[label] == Path(name).parent.name
    assert "12 images" in str(prepared) and "dog/0002.jpg: the file is empty" in str(prepared)
    assert "1 images have an EXIF orientation other than 1 and stay" in str(prepared)


def test_upright_turns_and_says_so(photos: Photos, tmp_path: Path) -> None:
    """Protects photographs: turned only where asked for; then the pixels are those of Pillow's transposition."""
    source = photos()
    prepared = run(source, tmp_path / "out", upright=True)
    image, _ = ShardsConfig(path=str(tmp_path / "out")).open().item(0)
    turned = ImageOps.exif_transpose(Image.open(source / "bee" / "0000.jpg"))
    assert (image.numpy() == centre_crop(turned, 8).transpose(2, 0, 1)).all()
    assert "1 images were turned as their EXIF orientation says" in str(prepared)


def test_workers_and_parts_change_no_byte(photos: Photos, tmp_path: Path) -> None:
    """Protects reproducibility: one process, several, three machines in any order, and a second call give one folder;
    the manifest comes with whichever part is last."""
    source = photos()
    run(source, tmp_path / "one")
    expected = tree(tmp_path / "one")
    assert {"manifest.json", "plan.json", "labels.npy", "contact-sheet.png", "shards/000005.json"} < expected.keys()
    run(source, tmp_path / "several", workers=3)
    assert tree(tmp_path / "several") == expected
    for number in (3, 1, 2):
        prepared = run(source, tmp_path / "parts", part=f"{number}/3", workers=2)
        assert (prepared.manifest is None) == (number != 2)
        if number != 2:
            assert "shards are still missing: those of other parts" in str(prepared)
    assert tree(tmp_path / "parts") == expected
    again = run(source, tmp_path / "parts")
    assert again.images == 0 and tree(tmp_path / "parts") == expected
    for changed in ({"resolution": 4}, {"per_shard": 3}, {"upright": True}, {"most_pixels": 99}):
        ((name, value),) = changed.items()
        with refused(UserError, tmp_path / "parts", f"{name} was", f"is now {value}", "another --out"):
            run(source, tmp_path / "parts", **changed)


def test_the_source_may_move_and_not_change(photos: Photos, tmp_path: Path) -> None:
    """Protects several machines, which see one source under different paths, from a source that is not the same."""
    source = photos()
    run(source, tmp_path / "out", part="1/2")
    moved = source.rename(tmp_path / "elsewhere")
    assert run(moved, tmp_path / "out", part="2/2").manifest is not None
    (moved / "bee" / "0000.jpg").unlink()
    with refused(UserError, tmp_path / "out", "source was", "count was 12", 11, "another --out"):
        run(moved, tmp_path / "out")


@pytest.mark.parametrize("of", [1, 2, 3, 7])
@pytest.mark.parametrize("shards", [1, 2, 6, 100])
def test_parts_cover_the_shards(of: int, shards: int) -> None:
    """Protects against shards that nobody makes, for more parts than shards too."""
    parts = [MachinePart(number, of).of_shards(shards) for number in range(1, of + 1)]
    assert [number for part in parts for number in part] == list(range(shards))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_shards_of_a_reasonable_size() -> None:
    """Protects defaults: no shard above 256 MiB, many enough to share the work, none of a few images."""
    item = 3 * 256 * 256
    assert default_per_shard(1_281_167, item) == SHARD_BYTES // item == 1365
    assert default_per_shard(100, item) == 64
    assert default_per_shard(50_000, item) == 195
    assert default_per_shard(10**9, 3 * 8192**2) == 1


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b", "1/0", ""])
def test_impossible_parts_are_refused(part: str, photos: Photos, tmp_path: Path) -> None:
    """Protects against machines that do the same work or none."""
    with refused(UserError, f"'{part}'", "K/N", "2/4"):
        run(photos(), tmp_path / "out", part=part)


def test_one_process_works_on_a_part(photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects a part from two processes; other parts are free; what a killed one left is swept away."""
    source, out = photos(), tmp_path / "out"
    monkeypatch.setattr("repae.preparation.part.PATIENCE", 0.1)
    with locked(out / ".part-1-of-1.lock"):
        with refused(UserError, "another process", "part 1/1", out, "--part K/N"):
            run(source, out)
        run(source, out, part="1/2")
    (out / ".part-2-of-2").mkdir()
    (out / ".part-2-of-2" / ".tmp-000005.images.npy-0123").write_bytes(b"half")
    (out / ".part-2-of-2.lock").touch()
    run(source, out, part="2/2")
    assert not list(out.glob(".*")) and verify(out, "images").count == 10


def test_a_dying_worker_does_not_refuse_the_next_command(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects who starts again at once: a worker of the killed command may write a last file into the part's folder
    just after it was swept; it is gone in the end."""
    source, out, sweep = photos(), tmp_path / "out", shutil.rmtree
    swept: list[Path] = []

    def and_again(folder: Path, **options: Any) -> None:
        sweep(folder, **options)
        if not swept:
            folder.mkdir(parents=True)
            (folder / ".tmp-000005.images.npy-0123").write_bytes(b"half")
        swept.append(folder)

    monkeypatch.setattr("repae.preparation.part.shutil.rmtree", and_again)
    run(source, out)
    assert len(swept) >= 2 and not list(out.glob(".*")) and verify(out, "images").count == 10


def test_only_broken_images_make_an_empty_folder_that_cannot_train(tmp_path: Path) -> None:
    """Protects the corner: everything refused is said, nothing is drawn, and training refuses in words."""
    (tmp_path / "photos" / "a").mkdir(parents=True)
    (tmp_path / "photos" / "a" / "1.png").write_bytes(b"")
    prepared = run(tmp_path / "photos", tmp_path / "out")
    assert prepared.manifest is not None and prepared.manifest.count == 0 and "1 images were refused" in str(prepared)
    with refused(UserError, tmp_path / "out", "no image", "another source"):
        ShardsConfig(path=str(tmp_path / "out")).open()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_said_and_nothing_complete_is_lost(
    photos: Photos, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects what is there: complete shards stay, the half one goes, the words say how much is missing and what to
    do; with room again the same call ends as if undisturbed."""
    source, out = photos(), tmp_path / "out"
    run(source, tmp_path / "whole")
    with monkeypatch.context() as patch:
        write = _FieldFile.append_all

        def full(self: _FieldFile, items: np.ndarray) -> None:
            if self.target.name.startswith("000003"):
                raise OSError(errno.ENOSPC, "No space left on device")
            write(self, items)

        patch.setattr(_FieldFile, "append_all", full)
        with refused(UserError, "disk is full", "of 6 shards", out, "complete and stay", "same command again") as error:
            run(source, out, workers=workers)
    assert "\n" not in str(error.value)
    made = [number for number in range(6) if (out / sidecar_file(number)).exists()]
    assert 3 not in made and (workers > 1 or made == [0, 1, 2])
    assert not list(out.rglob(".*"))
    assert all(tree(out / "shards")[f"{n:06}.images.npy"] for n in made)
    run(source, out, workers=workers)
    assert tree(out) == tree(tmp_path / "whole")


def test_room_is_looked_for_first(photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects hours of work: a disk that is too small is refused before the first image; what is needed is said."""
    said: list[str] = []
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    monkeypatch.setattr(ShardWriter, "__enter__", lambda _: pytest.fail("work began"))
    with refused(UserError, tmp_path / "out", "need 3.94 kB", "1 kB free", "free 2.94 kB", "--out", "--resolution"):
        prepare(
            FolderConfig(path=str(photos())), tmp_path / "out", PrepareConfig(resolution=8, per_shard=2), said.append
        )
    assert "12 images of 8 px into 6 shards" in said[0] and "3.94 kB needed, 1 kB free" in said[0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full(
    photos: Photos, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects against what only a real file system does, such as buffers that fail when they are closed."""
    source, usage = photos(30), shutil.disk_usage
    asked = iter([SimpleNamespace(free=10**9)])
    monkeypatch.setattr("shutil.disk_usage", lambda folder: next(asked, None) or usage(folder))
    with refused(UserError, "disk is full", "of 15 shards", small_disk / "out", "same command again") as error:
        run(source, small_disk / "out", resolution=32)
    assert "\n" not in str(error.value) and not list((small_disk / "out").rglob(".*"))
    complete = list((small_disk / "out" / "shards").glob("*.json"))
    run(source, tmp_path / "whole", resolution=32)
    for path in complete:
        for file in (small_disk / "out" / "shards").glob(f"{path.stem}.*"):
            assert file.read_bytes() == (tmp_path / "whole" / "shards" / file.name).read_bytes()


def test_a_failure_in_a_worker_comes_with_its_place(photos: Photos, tmp_path: Path, monkeypatch: Any) -> None:
    """Protects whoever has to find our mistakes: the worker's own traceback is shown; a killed one is said in words."""
    monkeypatch.setattr("repae.preparation.images.orientation", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError) as error:
        run(photos(), tmp_path / "out", workers=2)
    assert "in __call__" in str(error.value.__cause__)
    monkeypatch.setattr("repae.preparation.images.orientation", lambda _: os.kill(os.getpid(), signal.SIGKILL))
    with refused(UserError, "SIGKILL", "memory", "fewer --workers"):
        run(photos(), tmp_path / "out", workers=2)


@pytest.mark.slow
def test_killed_twenty_times_it_ends_as_if_undisturbed(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects long preparations: SIGKILL at random moments, of the first process alone or of all of them, with one
    worker or three; the last call finds a folder that ends byte for byte as an undisturbed one, and nothing beside."""
    source, out, dice = photos(300), tmp_path / "out", random.Random(0)
    run(source, tmp_path / "whole")
    monkeypatch.setattr("repae.preparation.images.orientation", lambda data: time.sleep(0.003) or orientation(data))
    kills = 0
    while kills < 20:
        enough = len(list(out.glob("shards/*.json"))) + dice.choice([0, 0, 1, 2, 3])
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                run(source, out, workers=1 + kills % 3)
                os._exit(0)
            finally:
                os._exit(1)
        wait_for(lambda child=child: os.getpgid(child) == child, child)  # else there is no group to kill
        wait_for(lambda enough=enough: len(list(out.glob("shards/*.json"))) >= enough, child)
        time.sleep(dice.uniform(0, 0.03))
        (os.killpg if kills % 2 else os.kill)(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, "it was done before it could be killed"
        assert not (out / "manifest.json").exists()
        kills += 1
    run(source, out, workers=2)
    assert tree(out) == tree(tmp_path / "whole")


def wait_for(condition: Callable[[], bool], child: int) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline and os.waitpid(child, os.WNOHANG)[0] == 0
        time.sleep(0.001)


def test_training_sees_the_source(photos: Photos, tmp_path: Path) -> None:
    """Protects the choice between the two: from shards and from the folder, the same images and labels."""
    source = photos(broken=False)
    run(source, tmp_path / "out")
    one, other = FolderConfig(path=str(source), resolution=8).open(), ShardsConfig(path=str(tmp_path / "out")).open()
    assert one.class_names == other.class_names and one.labels.tolist() == other.labels.tolist()
    assert all((one.item(i)[0] == other.item(i)[0]).all() for i in range(len(one)))
