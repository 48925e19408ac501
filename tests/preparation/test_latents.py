"""Latents are written once: whole, in the same bytes however often it was interrupted, by one process or several."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import encoders
import pytest
import torch
from encoders import CLASSES, IMAGES, autoencoder, data, encoder, pictures
from errors import refused
from processes import child_environment, run_processes

from repae.config import UserError
from repae.data.latent_cache import CachedLatents
from repae.data.shard_folder import read_manifest
from repae.models.pixels import to_symmetric
from repae.preparation.encode_latents import CacheSettings, cache_latents
from repae.runtime.digest import weights_digest

SETTINGS = CacheSettings(dtype="fp32", flipped=True, batch_size=2, per_shard=3)


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return pictures(tmp_path / "images")


def test_a_cache_holds_what_the_networks_say(images: Path, tmp_path: Path) -> None:
    """Every row is the posterior of its image, and of the mirrored image (not the mirrored posterior), to the bit."""
    dataset, vae = data(images).open(), autoencoder()
    manifest = cache_latents(tmp_path / "out", dataset, encoder(), SETTINGS)
    assert manifest is not None and manifest == read_manifest(tmp_path / "out", "latents")
    assert manifest.count == IMAGES and manifest.class_counts == (4, 4, 3) and len(manifest.class_counts) == CLASSES
    store = CachedLatents(tmp_path / "out")
    every = torch.arange(IMAGES)
    for flips in (None, torch.ones(IMAGES, dtype=torch.bool)):
        seen = dataset.batch(every, flips).images
        mean, logvar = vae.encode(to_symmetric(seen))
        cached = store.moments(every, flips)
        torch.testing.assert_close(cached.mean, mean)
        torch.testing.assert_close(cached.std, (0.5 * logvar).exp())
        torch.testing.assert_close(store.tokens(0, every, flips), encoders.Shades()(seen))
    assert not torch.allclose(store.moments(every).mean.flip(-1), cached.mean, atol=1e-2)
    assert store.folder.names(1) == [dataset.name(index) for index in (3, 4, 5)]
    about = store.about
    assert about.vae == weights_digest(vae) and about.data == dataset.fingerprint and about.class_names[0] == "00000"
    assert about.statistics_digest == about.statistics.sha256
    assert [(each.name, each.tokens, each.dim) for each in about.teachers] == [("shades", 4, 6)]
    assert about.teachers[0].weights == weights_digest(encoders.Shades())


@pytest.mark.parametrize(("dtype", "error"), [("fp32", 0.0), ("fp16", 2**-11), ("bf16", 2**-8)])
def test_half_precision_rounds_and_no_more(dtype: Any, error: float, images: Path, tmp_path: Path) -> None:
    """To the nearest number of that type, moments and tokens alike."""
    dataset = data(images).open()
    cache_latents(tmp_path / "exact", dataset, encoder(), SETTINGS)
    cache_latents(tmp_path / "out", dataset, encoder(), SETTINGS.replace(dtype=dtype))
    exact, store, every = CachedLatents(tmp_path / "exact"), CachedLatents(tmp_path / "out"), torch.arange(IMAGES)
    for ours, theirs in zip(store.moments(every), exact.moments(every)):
        torch.testing.assert_close(ours, theirs, rtol=error, atol=1e-7)
    torch.testing.assert_close(store.tokens(0, every), exact.tokens(0, every), rtol=error, atol=1e-7)


def test_what_a_type_cannot_hold_is_refused(images: Path, tmp_path: Path) -> None:
    """Not stored as infinity; nothing of that shard stays."""
    huge = encoder(teachers=False)
    with torch.no_grad():
        huge.vae.encoder[-1].bias[:2] = 1e6  # type: ignore[union-attr,index,operator]
    with refused(UserError, "the mean", "fp16", "--dtype bf16 or fp32"):
        cache_latents(tmp_path / "out", data(images).open(), huge, CacheSettings(dtype="fp16"))
    assert list((tmp_path / "out" / "shards").iterdir()) == []


def test_an_unreadable_image_is_represented_as_in_training(images: Path, tmp_path: Path) -> None:
    """Its row holds the next readable one, says so, and has that one's class."""
    broken = sorted(images.rglob("*.png"))[4]
    broken.write_bytes(b"no image")
    dataset = data(images).open()
    cache_latents(tmp_path / "out", dataset, encoder(), SETTINGS)
    store = CachedLatents(tmp_path / "out")
    assert store.present(torch.tensor([3, 4, 5])).tolist() == [3, 5, 5]
    torch.testing.assert_close(store.moments(torch.tensor([4])).mean, store.moments(torch.tensor([5])).mean)
    assert store.folder.labels()[4] == dataset.labels[5]


@pytest.mark.parametrize("at", range(1, 8))
def test_an_interrupted_cache_ends_byte_for_byte_as_an_undisturbed_one(
    at: int, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted in batch `at`, complete shards stay untouched and the others are made; also with workers."""
    dataset = data(images).open()
    cache_latents(tmp_path / "whole", dataset, encoder(), SETTINGS)
    count = [0]
    original = encoders.Encoder.__call__

    def dying(self: Any, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        count[0] += 1
        if count[0] == at:
            raise KeyboardInterrupt
        return original(self, batch)

    monkeypatch.setattr(encoders.Encoder, "__call__", dying)
    with pytest.raises(KeyboardInterrupt):
        cache_latents(tmp_path / "out", dataset, encoder(), SETTINGS)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "shards").glob("*.json")}
    cache_latents(tmp_path / "out", dataset, encoder(), SETTINGS)
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items())
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    cache_latents(tmp_path / "out", dataset, encoder(), SETTINGS)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_other_settings_weights_or_images_do_not_go_into_a_begun_folder(images: Path, tmp_path: Path) -> None:
    """What is half of this and half of that would be worth nothing."""
    dataset, out = data(images).open(), tmp_path / "out"
    cache_latents(out, dataset, encoder(), SETTINGS)
    with refused(UserError, out, "dtype was 'fp32'", "'bf16'", "another --out"):
        cache_latents(out, dataset, encoder(), SETTINGS.replace(dtype="bf16"))
    with refused(UserError, out, "vae was", "another --out"):
        cache_latents(out, dataset, encoder(seed=1), SETTINGS)
    sorted(images.rglob("*.png"))[0].rename(images / "00000" / "img00000099.png")
    with refused(UserError, out, "data was", "another --out"):
        cache_latents(out, data(images).open(), encoder(), SETTINGS)
    with refused(UserError, images, "not empty", "--out"):
        cache_latents(images, dataset, encoder(), SETTINGS)


def test_a_full_disk_leaves_what_was_complete(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says so, and the same call goes on."""
    from repae.data import shard_writer

    dataset, out = data(images).open(), tmp_path / "out"
    original = shard_writer._FieldFile.append

    def full(self: Any, item: Any) -> None:
        if "000002" in self.target.name:
            raise OSError(28, "No space left on device")
        original(self, item)

    monkeypatch.setattr(shard_writer._FieldFile, "append", full)
    with refused(UserError, out, "No space left", "make room", "same command again"):
        cache_latents(out, dataset, encoder(), SETTINGS)
    monkeypatch.undo()
    assert len(list((out / "shards").glob("*.json"))) == 2
    cache_latents(out, dataset, encoder(), SETTINGS)
    cache_latents(tmp_path / "whole", dataset, encoder(), SETTINGS)
    assert files(out) == files(tmp_path / "whole")


def share(images: str, out: str) -> bool:
    """One of several processes; True on the first."""
    return cache_latents(Path(out), data(Path(images)).open(), encoder(), SETTINGS) is not None


@pytest.mark.slow
def test_two_processes_share_the_work(images: Path, tmp_path: Path) -> None:
    """Each makes half of the shards; together the same bytes as one."""
    assert run_processes(share, str(images), str(tmp_path / "out"), size=2) == [True, False]
    cache_latents(tmp_path / "whole", data(images).open(), encoder(), SETTINGS)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import encoders
from repae.preparation.encode_latents import CacheSettings, cache_latents
from repae.data import shard_writer
original, count = shard_writer._FieldFile.finish, [0]
def dying(self, items):
    count[0] += 1
    if count[0] == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, items)
shard_writer._FieldFile.finish = dying
settings = CacheSettings(dtype="fp32", flipped=True, batch_size=2, per_shard=3, workers=1)
cache_latents(Path(sys.argv[2]), encoders.data(Path(sys.argv[1])).open(), encoders.encoder(), settings)
"""


@pytest.mark.slow
def test_a_killed_cache_ends_byte_for_byte_as_an_undisturbed_one(images: Path, tmp_path: Path) -> None:
    """SIGKILL between the files of a shard; not even a temporary file stays. Reading ahead changes nothing."""
    out = tmp_path / "out"
    paths = os.pathsep.join([str(Path(__file__).parents[1]), child_environment()["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-c", KILLED.format(at=9), str(images), str(out)],
        env=child_environment(PYTHONPATH=paths), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(list((out / "shards").glob("*.json"))) == 1 and list((out / "shards").glob(".tmp-*"))
    dataset = data(images).open()
    cache_latents(out, dataset, encoder(), SETTINGS.replace(workers=1))
    cache_latents(tmp_path / "whole", dataset, encoder(), SETTINGS)
    assert files(out) == files(tmp_path / "whole")
