"""The endless order: permutations, agreement, and randomness that can be told from a fixed order."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from repae.data.order import Order

sizes = st.one_of(
    st.integers(1, 40), st.integers(1, 3000), st.sampled_from([2**k + d for k in range(2, 12) for d in (-1, 0, 1)])
)
seeds = st.integers(-(2**70), 2**70)


@settings(max_examples=60, deadline=None)
@given(size=sizes, seed=seeds, epoch=st.one_of(st.integers(0, 5), st.integers(0, 2**40)))
def test_each_epoch_is_a_permutation(size: int, seed: int, epoch: int) -> None:
    """Protects against images shown twice or never, for every size, also far into a run."""
    indices = Order(size, seed).indices(np.arange(epoch * size, (epoch + 1) * size))
    assert indices.dtype == np.int64
    assert (np.sort(indices) == np.arange(size)).all()


@settings(max_examples=40, deadline=None)
@given(size=sizes, seed=seeds, positions=st.lists(st.integers(0, 2**50), max_size=30))
def test_a_position_means_the_same_in_any_company(size: int, seed: int, positions: list[int]) -> None:
    """Protects resuming and sharing: an index depends on its own position, not on what else is asked for."""
    order, array = Order(size, seed), np.array(positions, dtype=np.int64)
    single = [int(order.indices(np.array([p]))[0]) for p in positions]
    assert order.indices(array).tolist() == single
    assert order.flips(array).tolist() == [bool(order.flips(np.array([p]))[0]) for p in positions]
    assert (Order(size, seed).indices(array) == single).all()


def test_epochs_and_seeds_differ() -> None:
    """Protects the shuffling: no two epochs and no two seeds have the same order."""
    orders = [Order(1797, seed).indices(np.arange(1797) + 1797 * epoch) for seed in range(4) for epoch in range(5)]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert (one == other).mean() < 0.01


def test_every_place_gets_every_image_equally_often() -> None:
    """Protects the fairness of small sets: image by place over 20,000 epochs, chi-square within five deviations."""
    size, epochs = 7, 20_000
    indices = Order(size, 3).indices(np.arange(size * epochs)).reshape(epochs, size)
    expected = epochs / size
    counts = np.stack([np.bincount(indices[:, place], minlength=size) for place in range(size)])
    freedom = (size - 1) ** 2
    assert abs(((counts - expected) ** 2 / expected).sum() - freedom) < 5 * (2 * freedom) ** 0.5
    successors = np.zeros((size, size))
    np.add.at(successors, (indices[:, :-1].ravel(), indices[:, 1:].ravel()), 1)
    pairs = successors[~np.eye(size, dtype=bool)]
    assert np.abs(pairs / pairs.mean() - 1).max() < 0.05


def test_order_has_no_trend() -> None:
    """Protects large sets, whose files are sorted by class: place and index are uncorrelated within noise."""
    for size in (1000, 4097, 100_000):
        indices = Order(size, 0).indices(np.arange(size))
        assert abs(np.corrcoef(indices, np.arange(size))[0, 1]) < 5 / size**0.5
        assert abs(np.corrcoef(indices[1:], indices[:-1])[0, 1]) < 5 / size**0.5


def test_flips_are_fair_and_belong_to_image_and_epoch() -> None:
    """Protects the flip: half of them, independent of the image's place, drawn anew in each epoch."""
    size, epochs = 500, 40
    order, positions = Order(500, 1), np.arange(size * epochs)
    table = np.zeros((epochs, size), dtype=bool)
    table[positions // size, order.indices(positions)] = order.flips(positions)
    assert abs(table.mean() - 0.5) < 5 * 0.5 / table.size**0.5
    assert (np.abs(table.mean(0) - 0.5) < 5 * 0.5 / epochs**0.5).all()
    assert 0.3 < (table[1:] != table[:-1]).mean() < 0.7
    other = Order(500, 2)
    assert 0.3 < (other.flips(positions) != order.flips(positions)).mean() < 0.7
