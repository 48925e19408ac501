from __future__ import annotations

import numpy as np
import pytest
import torch
from errors import refused
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg

from repae.config import UserError
from repae.evaluation import Gaussian, frechet_distance, frechet_floor
from repae.evaluation.frechet import moments, rank_warning


def _features(n, d, seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mix * scale + torch.arange(d)


@given(st.integers(1, 12), st.integers(0, 10_000))
def test_equals_the_matrix_root_of_scipy(width, seed):
    """The symmetric form gives what the usual implementation (sqrtm of the product of covariances) gives."""
    a, b = _features(40, width, seed), _features(50, width, seed + 1, 0.7)
    (mean_a, cov_a), (mean_b, cov_b) = [
        (rows.mean(0).numpy(), np.atleast_2d(np.cov(rows.numpy().T))) for rows in (a, b)
    ]
    root = linalg.sqrtm(cov_a @ cov_b).real
    expected = np.square(mean_a - mean_b).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-7, abs=1e-8)


def test_closed_form_of_commuting_gaussians():
    """For equal eigenvectors the distance is |m1 - m2|^2 + sum (s1 - s2)^2."""
    basis = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))).Q
    s1, s2 = torch.tensor([1.0, 2, 3, 0, 0.5]).double(), torch.tensor([2.0, 2, 1, 1, 0]).double()
    m1, m2 = torch.zeros(5).double(), torch.full((5,), 2.0).double()
    cov = [basis @ torch.diag(s.square()) @ basis.T for s in (s1, s2)]
    expected = 20 + float((s1 - s2).square().sum())
    assert Gaussian.of(m1, cov[0]).distance(Gaussian.of(m2, cov[1])) == pytest.approx(expected, rel=1e-12)


def test_is_a_distance():
    """Zero to itself, symmetric, and blind to a rotation of both sets."""
    a, b = _features(100, 8, 0), _features(90, 8, 3)
    turn = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64)).Q
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-8)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_singular_covariances_are_exact():
    """Fewer images than features, or a dead feature, is where a plain matrix root becomes complex or NaN."""
    a, b = _features(5, 30, 0), _features(6, 30, 1)
    a[:, 3] = b[:, 3] = 0
    (ma, ca), (mb, cb) = moments(a), moments(b)
    # tr (A^T A B^T B)^(1/2) is the sum of the singular values of A B^T, for the centred, scaled rows A and B.
    rows = [(x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (a, b)]
    cross = torch.linalg.svdvals(rows[0] @ rows[1].T).sum()
    expected = float((ma - mb).square().sum() + ca.trace() + cb.trace() - 2 * cross)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_moments_are_float64_and_unbiased():
    """float32 features with a large mean lose nothing in the covariance."""
    rows = torch.randn(200, 3) + 1000
    mean, cov = moments(rows)
    assert mean.dtype == cov.dtype == torch.float64
    assert np.allclose(cov.numpy(), np.cov(rows.double().numpy().T), rtol=1e-10)


def test_floor_is_small_fixed_and_above_zero():
    """Two halves of one set are near each other, nearer than to another set, and the figure repeats exactly."""
    a, b = _features(400, 6, 0), _features(400, 6, 1)
    floor = frechet_floor(a)
    assert 0 < floor < 0.1 * frechet_distance(a, b) and floor == frechet_floor(a)


def test_one_image_has_no_covariance():
    """Said in words instead of a division by zero."""
    with refused(UserError, "at least 2 images", "1 given", "give more"):
        frechet_distance(torch.zeros(1, 3), torch.zeros(5, 3))


def test_moments_do_not_depend_on_parts_or_order():
    """Rows in parts of any size and in any order have the moments of the whole, to 1e-12 of their size."""
    rows = (_features(500, 12, 5) + 300).float()
    mean, covariance = moments(rows)
    for size, order in ((1, torch.arange(500)), (7, torch.randperm(500)), (500, torch.arange(500).flip(0))):
        of_parts = moments(rows[order], chunk=size)
        assert torch.allclose(of_parts[0], mean, rtol=1e-12)
        assert torch.allclose(of_parts[1], covariance, rtol=1e-10, atol=1e-10)
    assert np.allclose(covariance.numpy(), np.cov(rows.double().numpy().T), rtol=1e-10)


@pytest.mark.parametrize("reference", ["torch-fidelity", "torchmetrics"])
def test_equals_two_other_libraries(reference):
    """On the same full-rank features, within 1e-6 of the sum of the two traces."""
    a, b = _features(300, 24, 1), _features(260, 24, 2, 0.8)
    if reference == "torch-fidelity":
        from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

        sides = [fid_features_to_statistics(rows) for rows in (a, b)]
        expected = fid_statistics_to_metric(*sides, verbose=False)["frechet_inception_distance"]
    else:
        from torchmetrics.image.fid import FrechetInceptionDistance

        identity = torch.nn.Identity()
        identity.num_features = 24
        metric = FrechetInceptionDistance(feature=identity).set_dtype(torch.float64)
        metric.update(a, real=True)
        metric.update(b, real=False)
        expected = float(metric.compute())
    traces = sum(float(moments(rows)[1].trace()) for rows in (a, b))
    assert abs(frechet_distance(a, b) - expected) < 1e-6 * traces


def test_few_rows_give_what_their_covariance_gives():
    """Of fewer images than dimensions the centred rows are the factor: no eigenvalues, the same distance."""
    a, b = _features(9, 40, 0), _features(200, 40, 1)
    assert Gaussian.fit(a).factor.shape == (40, 9)
    by_covariance = Gaussian.of(*moments(a)).distance(Gaussian.of(*moments(b)))
    assert frechet_distance(a, b) == pytest.approx(by_covariance, rel=1e-7)


def test_a_singular_covariance_is_flagged():
    """The words name both numbers; with one image more than dimensions the covariance can be whole."""
    assert "40 images for 40 dimensions" in rank_warning(40, 40)
    assert rank_warning(41, 40) is None


def test_other_dimensions_are_refused():
    """Features of two networks have no distance."""
    with refused(UserError, 3, "4 dimensions", "same network"):
        frechet_distance(torch.randn(9, 3), torch.randn(9, 4))


def test_whole_and_singular_covariances_meet():
    """Of one covariance the quick factor and that of the eigenvalues give the same distance; a nearly singular one is
    left to the eigenvalues, which leave its zeros out."""
    (ma, ca), (mb, cb) = moments(_features(300, 20, 0)), moments(_features(300, 20, 1))
    values, vectors = torch.linalg.eigh(ca)
    other = Gaussian.of(mb, cb)
    by_eigenvalues = Gaussian(ma, vectors * values.sqrt()).distance(other)
    assert Gaussian.of(ma, ca).distance(other) == pytest.approx(by_eigenvalues, rel=1e-10)
    flat = vectors[:, 3:] * values[3:].sqrt()
    assert Gaussian.of(ma, flat @ flat.T).factor.shape == (20, 17)
    assert Gaussian.of(ma, flat @ flat.T).distance(other) == pytest.approx(Gaussian(ma, flat).distance(other), rel=1e-7)
