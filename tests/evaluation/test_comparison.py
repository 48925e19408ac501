from __future__ import annotations

import numpy as np
import pytest
import torch
from errors import refused
from evaluation.fakes import Random, SmallInception
from npz_files import write_npz

from repae.config import UserError
from repae.evaluation import (
    ComparisonConfig,
    FeatureCache,
    ImagesInMemory,
    Reference,
    compare_images,
    frechet_distance,
    open_reference,
)
from repae.evaluation.frechet import moments

SETTINGS = ComparisonConfig(resamples=0, subsets=2, part=30)
NOWHERE = FeatureCache(None)


def _images(n, seed=0, size=8):
    return torch.randint(256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def _sides(n=60, m=70, labels=False):
    of = [torch.arange(count) % 3 if labels else None for count in (n, m)]
    real = ImagesInMemory("real", _images(m, 2), of[1])
    return ImagesInMemory("generated", _images(n, 1), of[0]), Reference("real", real, {})


def test_a_reference_in_adms_layout_is_read_both_ways(tmp_path):
    """Stored statistics and the images they are of give the same FID and sFID; without statistics sFID is refused."""
    cache, images = FeatureCache(tmp_path / "cache"), ImagesInMemory("generated", _images(60, 1))
    real = _images(70, 2)
    features = cache.features(ImagesInMemory("real", real), SmallInception())
    (mu, sigma), (mu_s, sigma_s) = (moments(features[part]) for part in ("pool", "spatial"))
    write_npz(tmp_path / "images.npz", real, torch.zeros(70).long())
    np.savez(tmp_path / "statistics.npz", mu=mu, sigma=sigma, mu_s=mu_s, sigma_s=sigma_s)
    both = {"arr_0": real.permute(0, 2, 3, 1).numpy(), "mu": mu, "sigma": sigma, "mu_s": mu_s, "sigma_s": sigma_s}
    np.savez(tmp_path / "both.npz", **both)
    np.savez(tmp_path / "no_spatial.npz", mu=mu, sigma=sigma)
    found = {
        name: compare_images(images, open_reference(tmp_path / f"{name}.npz"), SmallInception(), SETTINGS, cache)
        for name in ("images", "statistics", "both", "no_spatial")
    }
    from_images = found["images"].figures
    for name in ("statistics", "both"):
        for key in ("fid", "sfid"):
            assert found[name].figures[key] == pytest.approx(from_images[key], rel=1e-6), (name, key)
    assert set(found["statistics"].figures) == {"fid", "sfid", "inception_score"}
    assert set(from_images) >= {"fid", "sfid", "inception_score", "kid", "precision_inception", "recall_inception"}
    assert from_images["kid"] == found["both"].figures["kid"] and "sfid" not in found["no_spatial"].figures
    assert any("mu_s and sigma_s" in note for note in found["no_spatial"].notes)
    with refused(UserError, "sfid", "no_spatial.npz", "mu_s and sigma_s", "arr_0", "out of metrics"):
        named = SETTINGS.replace(metrics=("sfid",))
        compare_images(images, open_reference(tmp_path / "no_spatial.npz"), SmallInception(), named, cache)


def test_every_figure_of_a_network():
    """Keys carry the network's name, the Frechet distance is that of the features, notes speak of its own family."""
    images, reference = _sides()
    found = compare_images(images, reference, Random(), SETTINGS, NOWHERE)
    assert set(found.figures) == {f"{key}_random" for key in ("fd", "kd", "precision", "recall", "copies")}
    a, b = (NOWHERE.features(side, Random())["pool"] for side in (images, reference.images))
    assert found.figures["fd_random"] == pytest.approx(frechet_distance(a, b))
    assert found.notes == [] and found.classes == [] and found.intervals == {}
    assert set(found.deviations) == {"kd_random"}
    assert found.pairs[0]["distance"] == min(pair["distance"] for pair in found.pairs) and len(found.pairs) == 20


def test_order_and_batches_change_no_figure():
    """Whoever shuffles the images or computes features one by one gets the same numbers."""
    images, reference = _sides()
    shuffled = ImagesInMemory("generated", images.images[torch.randperm(60)])
    settings = SETTINGS.replace(metrics=("fid", "precision-recall"))
    one = compare_images(images, reference, Random(), settings, NOWHERE).figures
    other = compare_images(shuffled, reference, Random(), settings, FeatureCache(None, 1)).figures
    assert other == pytest.approx(one, rel=1e-5)


def test_few_images_are_marked():
    """Beside the figure: too few for the dimensions, and so few that the covariance is singular."""
    images, reference = _sides(59, 70)
    warnings = compare_images(images, reference, Random(dim=6), SETTINGS, NOWHERE).warnings
    assert "59 images; below 60" in warnings["fd_random"] and "below 1,000" in warnings["precision_random"]
    enough = compare_images(*_sides(60, 70), Random(dim=6), SETTINGS, NOWHERE).warnings
    assert "fd_random" not in enough and "below 1,000" in enough["kd_random"]
    singular = compare_images(images, reference, Random(dim=64), SETTINGS, NOWHERE).warnings
    assert "59 images for 64 dimensions: the covariance is singular" in singular["fd_random"]


def test_classes_are_told_apart():
    """Each class has its own row: one that is drawn from elsewhere has no precision, the others keep theirs."""
    images, reference = _sides(90, 90, labels=True)
    spoilt = torch.where((images.labels == 1)[:, None, None, None], torch.tensor(255).byte(), reference.images.images)
    found = compare_images(
        ImagesInMemory("generated", spoilt, images.labels), reference, Random(dim=40), SETTINGS, NOWHERE
    ).classes
    assert [row["class"] for row in found] == [0, 1, 2] and {row["generated"] for row in found} == {30}
    assert found[0]["precision"] == found[2]["recall"] == 1.0 and found[0]["fd"] == pytest.approx(0, abs=1e-6)
    assert found[1]["precision"] < 0.5 and found[1]["fd"] > 1


def test_intervals_hold_their_figures():
    """With resamples, Frechet distances, precision and recall have a 95% interval around the value."""
    found = compare_images(*_sides(), Random(), SETTINGS.replace(resamples=5), NOWHERE)
    assert set(found.intervals) == {"fd_random", "precision_random", "recall_random"}
    for key, (low, high) in found.intervals.items():
        assert low <= found.figures[key] <= high and high > low


@pytest.mark.parametrize(("metric", "part"), [("sfid", "no spatial part"), ("inception-score", "no logits part")])
def test_what_is_asked_for_and_cannot_be_had_is_refused(metric, part):
    """A figure of Inception in other features; nothing is computed before the refusal."""
    extractor = Random()
    with refused(UserError, metric, "random features", part, "Inception features"):
        compare_images(*_sides(), extractor, SETTINGS.replace(metrics=(metric,)), NOWHERE)
    assert extractor.asked == 0


def test_statistics_serve_inception_only(tmp_path):
    """Stored moments mean nothing in other features, and hold no images for kernels and neighbours."""
    np.savez(tmp_path / "s.npz", mu=np.zeros(6), sigma=np.eye(6))
    images, reference = _sides()[0], open_reference(tmp_path / "s.npz")
    for extractor, metric, fact in (
        (Random(), "fid", "Inception features"),
        (SmallInception(), "kid", "no images"),
        (SmallInception(), "precision-recall", "no images"),
    ):
        with refused(UserError, metric, "s.npz", fact, "arr_0"):
            compare_images(images, reference, extractor, SETTINGS.replace(metrics=(metric,)), NOWHERE)


def test_wrong_references_are_refused(tmp_path):
    """Another size, neither images nor statistics, statistics that do not fit each other, and NaN in them."""
    with refused(UserError, "4 x 4 px", "8 x 8 px", "images of one size"):
        compare_images(ImagesInMemory("small", _images(9, size=4)), _sides()[1], Random(), SETTINGS, NOWHERE)
    for name, arrays, facts in (
        ("a", {"mean": np.zeros(3)}, ["holds mean", "arr_0", "mu and sigma"]),
        ("b", {"mu": np.zeros(3), "sigma": np.eye(4)}, ["mu and sigma", "[3]", "[4, 4]", "[d] and [d, d]"]),
        ("c", {"mu": np.full(3, np.nan), "sigma": np.eye(3)}, ["mu and sigma", "NaN", "1 of 4 rows"]),
    ):
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with refused(UserError, tmp_path / f"{name}.npz", *facts):
            open_reference(tmp_path / f"{name}.npz")


def test_a_reference_is_known_by_its_content(tmp_path):
    """The digest changes with a stored number and not with the name of the file."""
    for name, shift in (("a", 0.0), ("b", 0.0), ("c", 1.0)):
        np.savez(tmp_path / f"{name}.npz", mu=np.zeros(3) + shift, sigma=np.eye(3))
    a, b, c = (open_reference(tmp_path / f"{name}.npz").digest for name in "abc")
    assert a == b != c
