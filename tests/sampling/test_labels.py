from __future__ import annotations

import torch
from errors import refused
from hypothesis import given
from hypothesis import strategies as st

from repae.config import UserError
from repae.sampling import balanced_labels, grid_labels, labels_like, random_labels


@given(st.integers(1, 300), st.integers(1, 20))
def test_balanced_labels_are_balanced(count, classes):
    """No class is drawn two times more often than another, nor in any first part of the list."""
    labels = balanced_labels(count, classes)
    counts = torch.bincount(labels, minlength=classes)
    assert len(labels) == count and int(counts.max() - counts.min()) <= 1 and len(counts) == classes
    assert torch.equal(labels[: count // 2 + 1], balanced_labels(count // 2 + 1, classes))


def test_random_labels_depend_on_seed_and_number_only():
    """A longer list begins like a shorter one, another seed gives another, and all classes are as likely."""
    labels = random_labels(4000, 10, seed=3)
    assert torch.equal(labels[:7], random_labels(7, 10, seed=3))
    assert not torch.equal(labels[:50], random_labels(50, 10, seed=4))
    counts = torch.bincount(labels, minlength=10)
    assert len(counts) == 10 and float(((counts - 400) ** 2 / 400).sum()) < 27.9  # chi square, 9 degrees, p = .001


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(1, 200))
def test_labels_like_keep_the_shares(labels, count):
    """Every class is within one image of its exact share, and the number of images is exact."""
    labels = torch.tensor(labels)
    drawn = labels_like(labels, count)
    exact = torch.bincount(labels, minlength=7) * count / len(labels)
    assert len(drawn) == count
    assert float((torch.bincount(drawn, minlength=7) - exact).abs().max()) < 1


def test_as_many_labels_as_images_are_those_of_the_images():
    """Figures of a whole data set compare like with like."""
    labels = torch.tensor([3, 1, 1, 0, 3, 3])
    assert torch.equal(labels_like(labels, 6), labels.sort().values)


def test_rows_of_a_grid_are_classes():
    """A class-conditional grid reads by rows; a thousand classes are thinned evenly, first and last included."""
    assert grid_labels(3, columns=2).tolist() == [0, 0, 1, 1, 2, 2]
    many = grid_labels(1000, rows=10, columns=4)
    assert len(many) == 40 and int(many[0]) == 0 and int(many[-1]) == 999 and len(many.unique()) == 10


def test_no_images_are_refused():
    """Zero images is a mistake that is named."""
    for call in (
        lambda: balanced_labels(0, 10),
        lambda: random_labels(0, 10, 0),
        lambda: labels_like(torch.tensor([0]), 0),
    ):
        with refused(UserError, "0 images", "at least 1"):
            call()
