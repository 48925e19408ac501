from __future__ import annotations

import numpy as np
import pytest
import torch
from errors import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors
from torch_fidelity.metric_prc import prc_features_to_metric

from repae.config import UserError
from repae.evaluation import manifold, manifolds, nearest_images


def _rows(n, seed, shift=0.0, d=6):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


@settings(max_examples=10)
@given(st.integers(0, 1000), st.sampled_from([0.0, 0.5, 1.5]), st.booleans())
def test_counts_equal_torch_fidelitys(seed, shift, memorised):
    """Exactly: how many generated images lie in the real manifold, and the reverse; copies of real images included."""
    real = _rows(90, seed + 1)
    generated = torch.cat([_rows(70, seed, shift), real[:10]]) if memorised else _rows(70, seed, shift)
    expected = prc_features_to_metric(
        generated, real, prc_neighborhood=3, prc_batch_size=32, save_cpu_ram=False, verbose=False
    )
    inside = manifolds(generated, real, 3)
    assert int(inside.generated.sum()) == round(expected["precision"] * len(generated))
    assert int(inside.real.sum()) == round(expected["recall"] * len(real))
    assert inside.precision == pytest.approx(expected["precision"], rel=1e-6)


def test_small_tables_give_the_same(monkeypatch):
    """How many distances are held at once changes nothing, and neither does the order of the images."""
    generated, real = _rows(80, 0, 0.4), _rows(100, 1)
    whole, near = manifolds(generated, real), nearest_images(generated, real, 2)
    monkeypatch.setattr(manifold, "TABLE", 130)
    parts, near_parts = manifolds(generated, real), nearest_images(generated, real, 2)
    assert torch.equal(whole.generated, parts.generated) and torch.equal(whole.real, parts.real)
    assert torch.equal(near.indices, near_parts.indices) and torch.allclose(near.distances, near_parts.distances)
    order = torch.randperm(80)
    assert torch.equal(manifolds(generated[order], real).generated, whole.generated[order])


def test_nearest_images_equal_scikit_learns():
    """Places and Euclidean distances, far from the origin too."""
    generated, real = _rows(50, 0, 1000.0), _rows(70, 1, 1000.0)
    distances, indices = NearestNeighbors(n_neighbors=3).fit(real.numpy()).kneighbors(generated.numpy())
    near = nearest_images(generated, real, 3)
    assert np.array_equal(near.indices.numpy(), indices) and np.allclose(near.distances.numpy(), distances)


def test_memorised_images_are_found():
    """Copies of real images are all copies; other images of the same kind about one in a hundred."""
    real = _rows(600, 0)
    copied = nearest_images(real[:50].float(), real.float())
    assert manifold.copies(copied, real.float()) == 1.0
    assert manifold.copies(nearest_images(_rows(300, 5), real), real) < 0.04


def test_too_few_images_are_refused():
    """Three neighbours need four images, and k nearest images k images."""
    with refused(UserError, "more than 3 images", "3 given", "fewer neighbours"):
        manifolds(_rows(3, 0), _rows(20, 1))
    with refused(UserError, "3 nearest", "1 to 2"):
        nearest_images(_rows(3, 0), _rows(2, 1), 3)
    with refused(UserError, 6, "5 dimensions", "same network"):
        nearest_images(_rows(3, 0), _rows(9, 1, d=5), 1)
