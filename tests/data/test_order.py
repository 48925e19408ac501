"""The endless order: permutations, agreement, and randomness that can be told from a fixed order."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repae.data.order import WINDOW, Order

near_squares = [k**2 + d for k in (2, 3, 7, 16, 31, 32, 60) for d in (-1, 0, 1)]
sizes = st.one_of(st.integers(1, 40), st.integers(1, 4000), st.sampled_from(near_squares))
seeds = st.integers(-(2**70), 2**70)
FIRST_OF_TEN = [8, 1, 9, 6, 2, 5, 0, 7, 4, 3]
FIRST_OF_TEN_BY_BLOCKS = [8, 0, 7, 9, 5, 3, 4, 2, 1, 6]
FIRST_OF_IMAGENET = [358551, 638841, 617915, 749812]
blocks = st.one_of(st.none(), st.integers(1, 50), st.integers(1, 5000))


@settings(max_examples=30)
@given(size=sizes, seed=seeds, block=blocks, epoch=st.one_of(st.integers(0, 5), st.integers(0, 2**40)))
def test_each_epoch_is_a_permutation(size: int, seed: int, block: int | None, epoch: int) -> None:
    """Protects against images shown twice or never, for every size and block, also far into a run."""
    indices = Order(size, seed, block).indices(np.arange(epoch * size, (epoch + 1) * size))
    assert indices.dtype == np.int64
    assert (np.sort(indices) == np.arange(size)).all()


@settings(max_examples=15)
@given(size=sizes, seed=seeds, block=blocks, positions=st.lists(st.integers(0, 2**50), max_size=12))
def test_a_position_means_the_same_in_any_company(
    size: int, seed: int, block: int | None, positions: list[int]
) -> None:
    """Protects resuming and sharing: an index depends on its own position, not on what else is asked for."""
    order, array = Order(size, seed, block), np.array(positions, dtype=np.int64)
    single = [int(order.indices(np.array([p]))[0]) for p in positions]
    assert order.indices(array).tolist() == single
    flips = [bool(order.flips(np.array([p]), np.array([i]))[0]) for p, i in zip(positions, single, strict=True)]
    assert order.flips(array, order.indices(array)).tolist() == flips
    assert (Order(size, seed, block).indices(array) == single).all()


def test_epochs_and_seeds_differ() -> None:
    """Protects the shuffling: no two epochs and no two seeds have the same order."""
    orders = [Order(1797, seed).indices(np.arange(1797) + 1797 * epoch) for seed in range(4) for epoch in range(5)]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert (one == other).mean() < 0.01


def test_runs_that_have_begun_keep_their_order() -> None:
    """Protects resuming across versions: the first images of a small and of a large set, as they have always been."""
    assert Order(10, 0).indices(np.arange(10)).tolist() == FIRST_OF_TEN
    assert Order(1_281_167, 7).indices(np.arange(4)).tolist() == FIRST_OF_IMAGENET
    assert Order(10, 0, 3).indices(np.arange(10)).tolist() == FIRST_OF_TEN_BY_BLOCKS


@settings(max_examples=20)
@given(size=st.integers(50, 5000), block=st.integers(1, 60), seed=seeds, epoch=st.integers(0, 99))
def test_blocks_stay_together(size: int, block: int, seed: int, epoch: int) -> None:
    """Protects slow storage: at any moment at most `WINDOW` blocks have been begun and not ended."""
    order = Order(size, seed, block)
    of = order.indices(np.arange(epoch * size, (epoch + 1) * size)) // block
    count = -(-size // block)
    first, last = np.full(count, size), np.zeros(count, dtype=int)
    np.minimum.at(first, of, np.arange(size))
    np.maximum.at(last, of, np.arange(size))
    open_at = np.cumsum(np.bincount(first, minlength=size + 1) - np.bincount(last + 1, minlength=size + 1))
    assert open_at.max() <= min(WINDOW, count)


def test_blocks_come_in_random_order() -> None:
    """Protects learning: windows, the blocks in them and the images in those are shuffled, anew in each epoch; and the
    block that lacks images comes anywhere."""
    size, block = 10_030, 25
    orders = [Order(size, seed, block).indices(np.arange(size) + size * epoch) for seed in (0, 1) for epoch in (0, 1)]
    for i, one in enumerate(orders):
        assert abs(np.corrcoef(one, np.arange(size))[0, 1]) < 0.2
        assert (np.diff(one) == 1).mean() < 0.02
        assert all((one == other).mean() < 0.01 for other in orders[:i])
    places = [int(np.argmax(Order(103, seed, 5).indices(np.arange(103)) >= 100)) for seed in range(200)]
    assert 0.2 < np.mean(np.array(places) < 50) < 0.8


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_all_orders_of_a_small_set_are_equally_likely(size: int) -> None:
    """Protects small sets from a biased network (one on squares gives orders of one parity only, one of few rounds some
    orders too often): chi-square over all `size`! orders of 30,000 epochs, within five deviations."""
    epochs, kinds = 30_000, math.factorial(size)
    orders = Order(size, 3).indices(np.arange(size * epochs)).reshape(epochs, size)
    _, counts = np.unique(orders @ size ** np.arange(size), return_counts=True)
    assert len(counts) == kinds
    expected = epochs / kinds
    assert ((counts - expected) ** 2 / expected).sum() < kinds - 1 + 5 * (2 * (kinds - 1)) ** 0.5


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
    indices = order.indices(positions)
    table[positions // size, indices] = order.flips(positions, indices)
    assert abs(table.mean() - 0.5) < 5 * 0.5 / table.size**0.5
    assert (np.abs(table.mean(0) - 0.5) < 5 * 0.5 / epochs**0.5).all()
    assert 0.3 < (table[1:] != table[:-1]).mean() < 0.7
    assert 0.3 < (Order(500, 2).flips(positions, indices) != order.flips(positions, indices)).mean() < 0.7
