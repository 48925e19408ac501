"""Every kind of source is one data set: the same files give the same pixels, labels and broken images through each."""

from __future__ import annotations

import itertools
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from image_sources import MAKERS, classes, difficult_files, encoded, in_order, picture

from repae.data import ImageDataset, ImagesConfig, Loader, SeveralConfig

BY_NUMBER = {"reference-hdf5"}
"""Kinds in which the classes of this material have no names."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ImagesConfig]:
    """The configuration of the difficult files in a kind of source, made once."""
    made: dict[str, ImagesConfig] = {}
    root = tmp_path_factory.mktemp("sources")

    def make(kind: str) -> ImagesConfig:
        if kind not in made:
            made[kind] = MAKERS[kind](root / kind.replace(" ", "-").replace(".", "-"), difficult_files())
        return made[kind].replace(resolution=16)

    return make


@pytest.fixture(scope="module")
def expected(sources: Callable[[str], ImagesConfig]) -> ImageDataset:
    """The folder of files, every image of which was read once."""
    data = sources("folder").open()
    data.batch(torch.arange(len(data)))
    return data


@pytest.mark.parametrize("kind", MAKERS)
def test_the_same_files_are_the_same_data(
    kind: str, sources: Callable[[str], ImagesConfig], expected: ImageDataset
) -> None:
    """Protects the interface: order, classes, pixels, what is broken and why, and what stands in for it."""
    files = difficult_files()
    data = sources(kind).open()
    assert len(data) == len(files)
    assert data.class_names == (tuple("012") if kind in BY_NUMBER else tuple(classes(files)))
    assert torch.equal(data.labels, expected.labels)
    assert [data.encoded(index) for index in range(len(data))] == [files[name] for name in in_order(files)]
    indices = torch.arange(len(data))
    mine, other = data.batch(indices), expected.batch(indices)
    assert torch.equal(mine.images, other.images) and torch.equal(mine.indices, other.indices)
    assert data.broken == expected.broken and len(data.broken) == 5
    assert len({data.source.name(index) for index in range(len(data))}) == len(data)


@pytest.mark.parametrize("kind", MAKERS)
def test_the_fingerprint_is_of_the_content(kind: str, tmp_path: Path) -> None:
    """Protects caches: the same for the same set wherever it lies, another for other bytes or another class."""
    names = [f"{own}/{i}.png" for own in ("a", "b") for i in range(3)]
    files = {name: encoded(picture(8, 8, seed), "PNG") for seed, name in enumerate(names)}

    def fingerprint(place: str, files: dict[str, bytes]) -> str:
        (tmp_path / place).mkdir()
        return MAKERS[kind](tmp_path / place / "set", files).open().fingerprint

    first = fingerprint("one", files)
    assert fingerprint("two", dict(reversed(files.items()))) == first
    assert fingerprint("three", files | {"a/0.png": files["a/0.png"] + b"x"}) != first
    moved = {("b/00.png" if name == "a/2.png" else name): content for name, content in files.items()}
    assert fingerprint("four", moved) != first


def test_storage_does_not_change_the_fingerprint(
    sources: Callable[[str], ImagesConfig], expected: ImageDataset
) -> None:
    """Protects caches when a folder is packed: names, sizes and classes are what counts."""
    for kind in ("dataset.json", "csv", "zip", "zip with dataset.json", "tar", "tar with csv"):
        assert sources(kind).open().fingerprint == expected.fingerprint


@pytest.mark.parametrize("kind", MAKERS)
def test_a_source_travels_to_another_process(kind: str, sources: Callable[[str], ImagesConfig]) -> None:
    """Protects workers that are started and not forked: no handle is pickled, even after it was used."""
    data = sources(kind).open()
    first = data.encoded(0)
    copy = pickle.loads(pickle.dumps(data))
    assert copy.encoded(0) == first and data.encoded(0) == first


@pytest.fixture(params=["fork", "spawn"])
def start_method(request: pytest.FixtureRequest) -> Iterator[str]:
    """How worker processes are started; afterwards as before."""
    if request.param not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {request.param}")
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.slow
def test_two_workers_read_what_one_process_reads(start_method: str, tmp_path: Path) -> None:
    """Protects handles: each worker opens its own, forked or started anew, also where the parent has read before."""
    kinds = ["zip", "tar", "webdataset", "parquet", "reference-hdf5"]
    files = {name: content for name, content in difficult_files().items() if "large" not in name}
    config = SeveralConfig(sources=tuple(MAKERS[kind](tmp_path / kind, files) for kind in kinds), resolution=16)
    data = config.open()
    size = len(data) // len(kinds)
    read = [data.encoded(index) for index in range(0, len(data), size)]
    assert len(set(read)) == 1
    alone = list(itertools.islice(Loader(config.open(), 15, seed=3), 6))
    beside = list(itertools.islice(Loader(data, 15, seed=3, workers=2), 6))
    assert len({index // size for batch in beside for index in batch.indices.tolist()}) == len(kinds)
    for one, other in zip(alone, beside, strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.indices, other.indices)
