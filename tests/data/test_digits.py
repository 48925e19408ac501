"""The embedded digits."""

from __future__ import annotations

import pytest
import torch
from errors import refused
from sklearn.datasets import load_digits

from repae.config import UserError
from repae.data import Digits, DigitsConfig


@pytest.fixture(scope="module")
def digits() -> Digits:
    return DigitsConfig().open()


def test_the_set_is_complete(digits: Digits) -> None:
    """Protects shapes, types, number and names."""
    assert len(digits) == 1797
    assert digits.images.shape == (1797, 1, 32, 32)
    assert digits.images.dtype == torch.uint8
    assert digits.images.min() == 0
    assert digits.images.max() == 255
    assert (digits.channels, digits.resolution, digits.num_classes, digits.flip) == (1, 32, 10, False)
    assert digits.class_names == tuple("0123456789")
    assert digits.labels.dtype == torch.int64
    assert digits.labels.tolist() == load_digits().target.tolist()


def test_as_scanned_the_values_are_the_nearest_bytes() -> None:
    """Protects the scale: at 8 px nothing is interpolated, and k sixteenths are within half a byte of 255 k / 16."""
    scans = torch.from_numpy(load_digits().images)
    images = DigitsConfig(resolution=8).open().images[:, 0].double()
    assert (images - scans * 255 / 16).abs().max() <= 0.5
    assert images[scans == 16].unique().tolist() == [255]
    assert images[scans == 8].unique().tolist() == [128]


def test_enlarging_keeps_the_picture(digits: Digits) -> None:
    """Protects the interpolation: averaging 4 x 4 blocks gives the scan back but for bicubic overshoot."""
    scans = torch.from_numpy(load_digits().images) * 255 / 16
    means = digits.images.double().reshape(-1, 8, 4, 8, 4).mean((2, 4))
    assert (means - scans).pow(2).mean().sqrt() < 20
    assert torch.corrcoef(torch.stack([means.flatten(), scans.flatten()]))[0, 1] > 0.99


def test_batches_and_items_are_rows_of_the_tensors(digits: Digits) -> None:
    """Protects the fast path, repeated indices and single items."""
    indices = torch.tensor([5, 0, 5, 1796])
    batch = digits.batch(indices)
    assert torch.equal(batch.images, digits.images[indices])
    assert torch.equal(batch.labels, digits.labels[indices])
    assert torch.equal(batch.indices, indices)
    image, label = digits.item(7)
    assert torch.equal(image, digits.images[7])
    assert label == int(digits.labels[7])
    assert digits.broken == {}
    batch.images.zero_()
    assert digits.images[5].any()


def test_asked_for_flips_are_done(digits: Digits) -> None:
    """Protects the interface: only the images that are named are mirrored."""
    batch = digits.batch(torch.tensor([1, 1]), torch.tensor([True, False]))
    assert torch.equal(batch.images[0], batch.images[1].flip(-1))
    assert torch.equal(batch.images[1], digits.images[1])


@pytest.mark.parametrize("index", [-1, 1797])
def test_an_index_outside_is_refused(digits: Digits, index: int) -> None:
    """Protects against tensors' reading of negative indices."""
    with refused(IndexError, f"{index}..{index}", "0..1796"):
        digits.item(index)


def test_the_fingerprint_is_of_the_pixels(digits: Digits) -> None:
    """Protects caches: equal for equal pixels, another one for another size or one changed pixel."""
    again = DigitsConfig().open()
    assert digits.fingerprint == again.fingerprint
    again.images[100, 0, 3, 3] ^= 1
    assert digits.fingerprint != again.fingerprint
    assert digits.fingerprint != DigitsConfig(resolution=16).open().fingerprint


@pytest.mark.parametrize("resolution", [4, 30, 260, 0, -32])
def test_impossible_sizes_are_refused(resolution: int) -> None:
    """Protects the user: the field is named."""
    with refused((UserError, ValueError), "resolution", resolution, "at most 256", "multiple of 4"):
        DigitsConfig(resolution=resolution)
