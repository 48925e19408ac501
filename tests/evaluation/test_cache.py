from __future__ import annotations

import logging

import pytest
import torch
from errors import refused
from evaluation.fakes import Random

from repae.config import UserError
from repae.evaluation import FeatureCache, ImagesInMemory


def _set(n=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return ImagesInMemory("images", torch.randint(256, (n, 3, 8, 8), dtype=torch.uint8, generator=generator))


def test_features_are_computed_once(tmp_path):
    """The second time, in another process too, they are read; other images or weights are computed."""
    extractor = Random(parts={"spatial": 4})
    first = FeatureCache(tmp_path, 3).features(_set(), extractor)
    again = FeatureCache(tmp_path).features(_set(), extractor)
    assert extractor.asked == 10 and set(first) == {"pool", "spatial"}
    assert torch.equal(first["pool"], again["pool"]) and torch.equal(first["spatial"], again["spatial"])
    FeatureCache(tmp_path).features(_set(seed=1), extractor)
    assert extractor.asked == 20
    other = Random(seed=1)
    FeatureCache(tmp_path).features(_set(), other)
    assert other.asked == 10 and other.digest != Random().digest


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    """Killed half-way, nothing is left behind that could be taken for features."""

    class Dies(Random):
        def __call__(self, images):
            if self.asked:
                raise KeyboardInterrupt
            return super().__call__(images)

    with pytest.raises(KeyboardInterrupt):
        FeatureCache(tmp_path, 4).features(_set(), Dies())
    assert list(tmp_path.iterdir()) == []


def test_two_that_compute_the_same_do_not_disturb_each_other(tmp_path):
    """Runs evaluated side by side share the images they are held against: whoever is second takes what is there."""

    class Overtaken(Random):
        def __call__(self, images):
            if not self.asked:
                FeatureCache(tmp_path).features(_set(), Random())
            return super().__call__(images)

    found = FeatureCache(tmp_path, 4).features(_set(), Overtaken())["pool"]
    assert torch.equal(found, FeatureCache(tmp_path).features(_set(), Random())["pool"])
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("damage", ["cut", "gone", "facts"])
def test_damaged_features_are_made_anew(tmp_path, damage, caplog):
    """With a word; the figures are right whatever happened to the cache."""
    expected = FeatureCache(None).features(_set(), Random())["pool"]
    FeatureCache(tmp_path).features(_set(), Random())
    (place,) = tmp_path.iterdir()
    if damage == "cut":
        (place / "pool.npy").write_bytes((place / "pool.npy").read_bytes()[:100])
    elif damage == "gone":
        (place / "pool.npy").unlink()
    else:
        (place / "features.json").write_text("{")
    with caplog.at_level(logging.WARNING, "repae"):
        found = FeatureCache(tmp_path).features(_set(), Random())["pool"]
    assert torch.equal(found, expected) and "damaged" in caplog.text


def test_batches_do_not_matter():
    """Rows are those of one image at a time, to rounding."""
    one, all_ = (FeatureCache(None, size).features(_set(), Random())["pool"] for size in (1, 64))
    assert torch.allclose(one, all_, rtol=1e-6)


def test_features_that_are_no_numbers_are_refused(tmp_path):
    """NaN is named with its images, and not kept."""

    class Broken(Random):
        def __call__(self, images):
            return {"pool": torch.full((len(images), 6), float("nan"))}

    with refused(UserError, "random features", "images 0 to 3", "NaN", "4 of 4 rows"):
        FeatureCache(tmp_path, 4).features(_set(), Broken())
    assert list(tmp_path.iterdir()) == []
