from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from errors import refused
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from repae.config import UserError
from repae.evaluation import inception_score, kernel_distance


def _rows(n, d, seed, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def test_the_inception_score_equals_torch_fidelitys():
    """Ten parts of the same permutation: mean and deviation to 1e-9."""
    logits = 3 * _rows(500, 20, 0)
    expected = isc_features_to_metric(logits, splits=10, shuffle=True, rng_seed=2020)
    score = inception_score(logits, part=50)
    assert score.mean == pytest.approx(expected["inception_score_mean"], rel=1e-9)
    assert score.deviation == pytest.approx(expected["inception_score_std"], rel=1e-9)


def test_the_inception_score_by_adms_rule():
    """Parts of a fixed size in the order of the file, the last one smaller: written out in numpy."""
    logits = 2 * _rows(130, 7, 1)
    p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    scores = []
    for first in range(0, 130, 50):
        part = p[first : first + 50]
        divergence = (part * (np.log(part) - np.log(part.mean(0, keepdims=True)))).sum(1)
        scores.append(np.exp(divergence.mean()))
    assert inception_score(logits, part=50, seed=None).mean == pytest.approx(np.mean(scores), rel=1e-12)


def test_limits_of_the_inception_score():
    """K equally frequent, certain classes score K; images that all look alike score 1."""
    certain = 1e3 * torch.eye(8).repeat(5, 1)
    assert inception_score(certain).mean == pytest.approx(8.0)
    assert inception_score(torch.ones(40, 8)).mean == pytest.approx(1.0)


def test_the_kernel_distance_equals_torch_fidelitys():
    """The same subsets and the same estimate, to 1e-9."""
    a, b = _rows(150, 12, 0), _rows(130, 12, 1, 0.3)
    expected = kid_features_to_metric(
        a, b, kid_subsets=7, kid_subset_size=60, kid_kernel="poly", kid_kernel_poly_degree=3,
        kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1, rng_seed=2020, verbose=False,
    )  # fmt: skip
    score = kernel_distance(a, b, subsets=7, size=60)
    assert score.mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-9)
    assert score.deviation == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-9)


def test_the_kernel_distance_equals_torchmetrics_on_whole_sets():
    """A subset that is the whole set has no randomness left."""
    from torchmetrics.image.kid import poly_mmd

    a, b = _rows(60, 5, 0), _rows(60, 5, 1, 0.5)
    assert kernel_distance(a, b, subsets=1, size=60).mean == pytest.approx(float(poly_mmd(a, b)), rel=1e-9)


def test_the_kernel_distance_is_unbiased():
    """Two sets of one distribution are at 0 within the error of the mean, and below it as often as above."""
    values = [kernel_distance(_rows(40, 4, s), _rows(40, 4, s + 500), subsets=1, size=40).mean for s in range(100)]
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(100)
    assert 20 < sum(value < 0 for value in values) < 80


def test_too_few_images_are_refused():
    """A subset larger than a set, sets of other dimensions, no image at all."""
    with refused(UserError, "subsets of 50", "set of 49", "allowed: 2 to 49"):
        kernel_distance(_rows(49, 3, 0), _rows(60, 3, 1), size=50)
    with refused(UserError, 3, "4 dimensions", "same network"):
        kernel_distance(_rows(60, 3, 0), _rows(60, 4, 1), size=50)
    with refused(UserError, "Inception Score", "at least 1 image", "give some"):
        inception_score(torch.zeros(0, 5))
