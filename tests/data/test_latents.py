"""Reading cached latents: the right rows beside the right images, in every process; anything else is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from encoders import IMAGES, RESOLUTION, data, encoder, pictures
from errors import refused

from repae.config import UserError
from repae.data import Dataset, Loader
from repae.data.latent_cache import CachedLatents
from repae.data.latent_dataset import LatentDataset, LatentsConfig
from repae.data.reference_latents import ReferenceLatents
from repae.preparation.encode_latents import CacheSettings, cache_latents
from repae.runtime.distributed import World


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and a cache of them with mirrored copies."""
    home = tmp_path_factory.mktemp("made")
    dataset = data(pictures(home / "images")).open()
    cache_latents(
        home / "cache", dataset, encoder(), CacheSettings(dtype="fp32", flipped=True, batch_size=4, per_shard=4)
    )
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """A copy of them, to be spoilt."""
    return Path(shutil.copytree(made, tmp_path / "home"))


def cached(home: Path, dataset: Dataset) -> CachedLatents:
    store = LatentsConfig(path=str(home / "cache")).open(dataset)
    assert isinstance(store, CachedLatents)
    return store


def test_batches_bring_the_latents_of_their_images(made: Path) -> None:
    """Latents and tokens of the mirrored image exactly where the loader mirrors, images only where they are asked."""
    dataset = data(made / "images", flip=True).open()
    store = cached(made, dataset)
    seeing = LatentDataset(dataset, store, teachers=[0], pixels=True)
    plain = Loader(dataset, 4, seed=3, world=World(0, 1, 0))
    mirrored = 0
    for batch, with_images, job, _ in zip(plain, Loader(seeing, 4, seed=3), plain.jobs(), range(6)):
        assert job.flips is not None and with_images.latents is not None and with_images.tokens is not None
        mirrored += int(job.flips.sum())
        torch.testing.assert_close(with_images.images, batch.images, rtol=0, atol=0)
        assert with_images.labels.equal(batch.labels) and with_images.indices.equal(batch.indices)
        expected = encoder()(batch.images)
        torch.testing.assert_close(with_images.latents.mean, expected["mean"])
        torch.testing.assert_close(with_images.latents.std, expected["std"])
        torch.testing.assert_close(with_images.tokens[0], expected["tokens_0"])
    assert 5 < mirrored < 19
    blind = LatentDataset(dataset, store)
    dataset.batch = None  # type: ignore[assignment]  # nobody may ask for images
    batch = next(iter(Loader(blind, 4, seed=3)))
    assert batch.images.shape == (4, 3, 0, 0) and batch.tokens is None
    assert batch.labels.equal(dataset.labels[batch.indices]) and batch.latents is not None


@pytest.mark.slow
def test_workers_read_the_same(made: Path) -> None:
    """Nothing open travels to a worker: forked or pickled, it opens its own files."""
    dataset = data(made / "images", flip=True).open()
    blind = LatentDataset(dataset, cached(made, dataset), teachers=[0])
    blind.store.moments(torch.arange(2))
    again = pickle.loads(pickle.dumps(blind))
    for one, two, three, _ in zip(
        Loader(blind, 4, seed=0), Loader(blind, 4, seed=0, workers=2), Loader(again, 4, seed=0), range(5)
    ):
        for other in (two, three):
            assert one.latents is not None and other.latents is not None and one.tokens is not None and other.tokens
            assert one.latents.mean.equal(other.latents.mean) and one.latents.std.equal(other.latents.std)
            assert one.tokens[0].equal(other.tokens[0]) and one.labels.equal(other.labels)


def test_latents_of_other_images_are_refused(home: Path) -> None:
    """Another resolution, another number, other files, mirrored ones that were not cached: each named, each mended."""
    images = home / "images"
    with refused(
        UserError,
        home / "cache",
        f"resolution was {RESOLUTION}",
        32,
        "`repae cache VAE --data DATA --out FOLDER`",
        "--latents none",
    ):
        cached(home, data(images, resolution=32).open())
    first = sorted(images.rglob("*.png"))[0]
    first.rename(first.with_name("img00000099.png"))
    with refused(
        UserError,
        home / "cache",
        "other images",
        "fingerprint",
        "`repae cache VAE --data DATA --out FOLDER`",
        "--latents none",
    ):
        cached(home, data(images).open())
    first.with_name("img00000099.png").unlink()
    with refused(UserError, home / "cache", "number of images", 11, 10, "--latents none"):
        cached(home, data(images).open())
    dataset = data(pictures(home / "other")).open()
    cache_latents(home / "plain", dataset, encoder(), CacheSettings())
    assert LatentsConfig(path=str(home / "plain")).open(dataset).dtype == "float16"
    with refused(UserError, home / "plain", "mirrored images", "--flipped", "--data.flip false"):
        LatentsConfig(path=str(home / "plain")).open(data(home / "other", flip=True).open())


@pytest.mark.parametrize("what", ["truncated", "missing", "altered", "unfinished", "images", "nothing"])
def test_damaged_folders_are_refused_before_anything_is_trained(what: str, home: Path) -> None:
    """A shard that is too short or gone, a manifest that was edited, a folder that is not finished, or none at all."""
    folder, dataset = home / "cache", data(home / "images").open()
    shard = folder / "shards" / "000001.std.npy"
    facts = {
        "truncated": ["shards/000001.std.npy", "639 bytes", 640, "delete shards/000001.json"],
        "missing": ["shards/000001.std.npy", "No such file", "delete shards/000001.json"],
        "altered": ["manifest.json", "altered", "run `repae cache` again"],
        "unfinished": ["not finished", "no manifest.json", "run the `repae cache` command"],
        "images": ["holds images", "`repae prepare`", "made by `repae cache`"],
        "nothing": ["`repae cache VAE --data DATA --out FOLDER`", "--latents none"],
    }[what]
    manifest = folder / "manifest.json"
    if what == "truncated":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif what == "missing":
        shard.unlink()
    elif what == "altered":
        manifest.write_text(manifest.read_text().replace('"count": 11', '"count": 10', 1))
    elif what == "unfinished":
        manifest.unlink()
    elif what == "images":
        body = json.loads(manifest.read_text())
        body["plan"]["kind"] = "images"
        manifest.write_text(json.dumps(body))
    else:
        shutil.rmtree(folder)
    with refused(UserError, folder, *facts) as caught:
        cached(home, dataset)
    assert "\n" not in str(caught.value)


def reference(folder: Path, dataset: Dataset, *, labels: bool = True, skip: int = -1) -> Path:
    """Latents as the reference's cache_latents.py leaves them: entries, their labels, and the list of names."""
    found = encoder(teachers=False)(dataset.batch(torch.arange(len(dataset))).images)
    both = torch.cat([found["mean"], found["std"]], 1).numpy()
    path = folder / "tiny-vae.h5"
    names, known = [], []
    with h5py.File(path, "w") as file:
        for index in reversed(range(len(dataset))):  # no order is promised
            if index == skip:
                continue
            name = dataset.name(index).replace("img", "img-mean-std-").replace(".png", ".npy")
            file.create_dataset(name, data=both[index])
            names.append(name)
            known.append((name, int(dataset.labels[index])))
        if labels:
            text = np.array(json.dumps({"labels": known}).encode("utf-8"), dtype="S")
            file.create_dataset("dataset.json", data=text)
            names.append("dataset.json")
    path.with_name("tiny-vae_h5.json").write_text(json.dumps(names, indent=2))
    return path


def test_the_references_latents_are_found_by_name(home: Path) -> None:
    """Mean then deviation of the image of that name, whatever the order of the entries; in any process."""
    dataset = data(home / "images").open()
    store = LatentsConfig(path=str(reference(home, dataset))).open(dataset)
    assert isinstance(store, ReferenceLatents) and store.shape == (2, 4, 4) and store.dtype == "float32"
    assert (len(store), store.vae, store.flipped, store.teachers) == (IMAGES, None, False, ())
    some = torch.tensor([7, 0, 10])
    expected = encoder()(dataset.batch(some).images)
    for opened in (store, pickle.loads(pickle.dumps(store))):
        found = LatentDataset(dataset, opened).batch(some)
        assert found.latents is not None and found.labels.equal(dataset.labels[some])
        torch.testing.assert_close(found.latents.mean, expected["mean"])
        torch.testing.assert_close(found.latents.std, expected["std"])


@pytest.mark.slow
def test_workers_open_the_references_file_themselves(home: Path) -> None:
    """A handle that was open before the fork is not used after it."""
    dataset = data(home / "images").open()
    store = LatentsConfig(path=str(reference(home, dataset))).open(dataset)
    blind = LatentDataset(dataset, store)
    store.moments(torch.arange(2))
    for one, two, _ in zip(Loader(blind, 4, seed=0), Loader(blind, 4, seed=0, workers=2), range(4)):
        assert one.latents is not None and two.latents is not None
        assert one.latents.mean.equal(two.latents.mean) and one.latents.std.equal(two.latents.std)


def test_reference_latents_that_do_not_belong_to_the_images_are_refused(home: Path) -> None:
    """An image without latent (where the reference would pair all others wrongly), other labels, mirrored data."""
    dataset = data(home / "images").open()
    path = reference(home, dataset, skip=4)
    with refused(UserError, path, f"'{dataset.name(4)}'", "images.h5"):
        LatentsConfig(path=str(path)).open(dataset)
    reference(home, dataset)
    with refused(UserError, path, "mirrored images", "--flipped", "--data.flip false"):
        LatentsConfig(path=str(path)).open(data(home / "images", flip=True).open())
    dataset.labels = dataset.labels.flip(0)
    with refused(UserError, path, "class 0", "the data say 2", "other images"):
        LatentsConfig(path=str(path)).open(dataset)
    assert LatentsConfig(path=str(reference(home, dataset, labels=False))).open(dataset)


@pytest.mark.parametrize("what", ["no list", "no HDF5", "images", "a missing entry"])
def test_files_that_are_no_latents_are_refused(what: str, home: Path) -> None:
    """Each in one line with what is expected."""
    dataset: Any = data(home / "images").open()
    path = reference(home, dataset)
    name = dataset.name(0).replace("img", "img-mean-std-").replace(".png", ".npy")
    if what == "no list":
        path.with_name("tiny-vae_h5.json").unlink()
        facts = ["tiny-vae_h5.json", "No such file", "copy it too"]
    elif what == "no HDF5":
        path.write_bytes(b"nothing")
        facts = ["HDF5", "fetch or make it again"]
    else:
        with h5py.File(path, "r+") as file:
            del file[name]
            if what == "images":
                file.create_dataset(name, data=np.zeros((5, 4, 4), np.uint8))
        facts = [name, *(["uint8", "(5, 4, 4)", "[2k, h, w]"] if what == "images" else ["damaged", "copy"])]
    with refused(UserError, "tiny-vae", *facts) as caught:
        LatentsConfig(path=str(path)).open(dataset)
    assert "\n" not in str(caught.value)
