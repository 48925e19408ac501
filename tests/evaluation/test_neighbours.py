from __future__ import annotations

import numpy as np
import pytest
import torch
from errors import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from repae.config import UserError
from repae.evaluation import neighbour_figures, precision_recall_density_coverage
from repae.evaluation.neighbours import distances, nearest_label_accuracy, pooled_pixels, to_others


def _rows(n, seed, shift=0.0, d=3):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def _figures(generated, real, k=5):
    return precision_recall_density_coverage(
        distances(generated, generated), distances(real, real), distances(generated, real), k
    )


@settings(max_examples=10)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_equal_the_definitions_by_another_library(seed, k):
    """Precision, recall, density and coverage, rebuilt from scikit-learn's neighbours and loops."""
    generated, real = _rows(30, seed, 0.5).numpy(), _rows(40, seed + 1).numpy()

    # The nearest of all is the point itself, hence k + 1.
    def radius(rows):
        return NearestNeighbors(n_neighbors=k + 1).fit(rows).kneighbors(rows)[0][:, -1]

    gap = np.linalg.norm(generated[:, None] - real[None], axis=-1)
    inside = gap <= radius(real)[None]
    expected = {
        "precision": np.mean([row.any() for row in inside]),
        "recall": np.mean([(gap[:, j] <= radius(generated)).any() for j in range(40)]),
        "density": inside.sum() / (k * 30),
        "coverage": np.mean([inside[:, j].any() for j in range(40)]),
    }
    assert _figures(torch.from_numpy(generated), torch.from_numpy(real), k) == pytest.approx(expected)


def test_limits():
    """The real set against itself is perfect; a set elsewhere scores nothing."""
    real = _rows(60, 0)
    same = _figures(real, real)
    assert same["precision"] == same["recall"] == same["coverage"] == 1.0 and same["density"] == pytest.approx(
        1.2, abs=0.2
    )
    assert set(_figures(_rows(60, 1, 100.0), real).values()) == {0.0}


def test_dropped_modes_show_in_recall_and_coverage_only():
    """Half the modes, perfectly drawn: every image is good, half the world is missing."""
    real = torch.cat([_rows(100, 0), _rows(100, 1, 50.0)])
    figures = _figures(_rows(100, 2), real)
    assert figures["precision"] > 0.9
    assert figures["recall"] < 0.51 and figures["coverage"] < 0.51


def test_one_nearest_neighbour_equals_scikit_learn():
    """1-NN accuracy is that of a 1-nearest-neighbour classifier fitted on the real images."""
    generator = torch.Generator().manual_seed(0)
    real, generated = _rows(80, 0), _rows(50, 1)
    real_labels, labels = (torch.randint(3, (n,), generator=generator) for n in (80, 50))
    model = KNeighborsClassifier(1).fit(real.numpy(), real_labels.numpy())
    expected = model.score(generated.numpy(), labels.numpy())
    assert nearest_label_accuracy(distances(generated, real), labels, real_labels) == pytest.approx(expected)


def test_no_image_is_its_own_neighbour():
    """Leave-one-out: duplicates count, the image itself does not."""
    rows = torch.tensor([[0.0], [0.0], [5.0]], dtype=torch.float64)
    assert to_others(distances(rows, rows)).min(1).values.tolist() == [0.0, 0.0, 5.0]


def test_pooled_pixels_are_block_means():
    """8 x 8 blocks of a 32 px image, in [0, 1], one row per image."""
    images = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8).repeat_interleave(4, -1).repeat_interleave(4, -2)
    assert torch.allclose(pooled_pixels(images) * 255, torch.arange(64).double()[None])


def test_copies_are_found(digits):
    """Memorised training images give distance 0 and all copies; unseen real images give about one in a hundred."""
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    train, unseen = order[:1200], order[1200:]

    def pick(rows):
        return (digits.images[rows], digits.labels[rows])

    memorised = neighbour_figures(*pick(train[:300]), *pick(train))
    honest = neighbour_figures(*pick(unseen), *pick(train))
    assert memorised["nn_distance"] == 0.0 and memorised["copies"] == 1.0
    assert honest["copies"] < 0.03 and honest["nn_distance"] == pytest.approx(honest["nn_distance_real"], rel=0.1)
    assert honest["nn_accuracy"] > 0.97 and honest["nn_accuracy_real"] > 0.97


def test_too_few_images_are_refused():
    """k neighbours need more than k images."""
    with refused(UserError, "more than 5 images", "5 given"):
        _figures(_rows(5, 0), _rows(20, 1))
